import subprocess
import sys


def test_asking_needs_no_torch():
    code = "import sys, sequela.task.answers.predict; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
