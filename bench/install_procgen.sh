#!/usr/bin/env bash
# Procgen for a current Python and numpy. The mirror's wheel runs, but its metadata asks for numpy < 2 and an abandoned
# gym, which pip would have to be lied to about; so it is installed without its dependencies, and those it truly needs
# are named here. `pip check` complains afterwards; nothing else is the worse for it. `make procgen` does the same for
# the repository's own .venv; this is for any other.
#
#   bash bench/install_procgen.sh [PYTHON]      default: .venv/bin/python, else python3
set -euo pipefail

python=${1:-}
if [ -z "$python" ]; then
    python=$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/python
    [ -x "$python" ] || python=python3
fi

"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) or sys.platform != "linux")' || {
    echo "procgen-mirror 0.10.7 has a wheel for Python 3.11 on Linux; $python is something else. Give another: $0 PYTHON" >&2
    exit 1
}
cd "$(dirname "$0")/.."
"$python" -m pip install --quiet -c constraints.txt cffi filelock imageio glfw moderngl
"$python" -m pip install --quiet -c constraints.txt --no-deps procgen-mirror==0.10.7 gym3==0.3.3
"$python" -c 'from tacit.envs.procgen import Procgen; print("ready:", Procgen("maze").reset(seed=0)[0]["frame"].shape)'
