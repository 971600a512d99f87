#!/usr/bin/env python3
"""grpc-c's README takes a C programmer to a running greeter: everything typed in it is typed, in one
shell and in order, and its files are written where it says, on a machine that has never seen grpc-c.
lib/page.py says how a page is read.

    TEST_WORK    where the home directory of that programmer is made
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from greeter import EXAMPLE, PATIENCE, ROOT  # noqa: E402
from page import blocks, commands, pattern, tidied  # noqa: E402

# That port may be taken on this machine.
ADDRESS, OWN_ADDRESS = "127.0.0.1:50051", "unix:greeter.sock"


class Shell:
    """A bash that is typed to, line by line. It ends with everything it started."""

    def __init__(self, folder, environment):
        self.folder = folder
        self.output = tempfile.TemporaryFile()
        self.bash = subprocess.Popen(
            # A process group of its own, and none where the test is killed.
            ["setpriv", "--pdeathsig", "KILL", "bash", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.typed = 0

    def type(self, command):
        """(status, what was said) of a command."""
        self.typed += 1
        mark = f"-- done {self.typed}: "
        begin = os.fstat(self.output.fileno()).st_size
        # Nothing that it runs takes what is typed next for its input.
        line = f"{{ {command}\n}} </dev/null; printf '\\n%s%d\\n' '{mark}' $?\n"
        self.bash.stdin.write(line.encode())
        self.bash.stdin.flush()
        deadline = time.monotonic() + 2 * PATIENCE
        while True:
            size = os.fstat(self.output.fileno()).st_size
            said = os.pread(self.output.fileno(), size - begin, begin).decode()
            found = re.search(rf"(?m)^{mark}(\d+)$", said)
            if found:
                return int(found.group(1)), said[: found.start()]
            if self.bash.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"$ {command}\n{said}\nhas not come to an end")
            time.sleep(0.01)  # between two looks

    def where(self):
        return pathlib.Path(self.type("pwd")[1].strip())

    def close(self):
        self.bash.stdin.close()
        try:
            os.killpg(self.bash.pid, 9)
        except ProcessLookupError:
            pass
        self.bash.wait()
        self.output.close()


class GrpcCReadmeTest(unittest.TestCase):
    def setUp(self):
        self.page = (ROOT / "grpc-c/README.md").read_text()
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="test-", dir=os.environ.get("TEST_WORK")))
        self.addCleanup(shutil.rmtree, self.work, ignore_errors=True)

    def shell(self):
        """In a checkout, with an empty home. Of the checkout only grpc-c is there."""
        checkout = self.work / "checkout"
        checkout.mkdir()
        (checkout / "grpc-c").symlink_to(ROOT / "grpc-c")
        home = self.work / "home"
        home.mkdir()
        # Packages that are there are left as they are; another apt may be at work.
        apt = self.work / "apt.conf"
        apt.write_text('APT::Get::Upgrade "false";\nDPkg::Lock::Timeout "300";\n')
        environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "APT_CONFIG": str(apt),
            "DEBIAN_FRONTEND": "noninteractive",
        }
        shell = Shell(checkout, environment)
        self.addCleanup(shell.close)
        return shell

    def type(self, shell, command, expected):
        if command.startswith("apt-get ") and os.geteuid() != 0:
            # Whoever is not root sees that there was nothing to install.
            command = f"test -z \"$({command} --simulate | grep '^Inst ')\""
        status, said = shell.type(command.replace(ADDRESS, OWN_ADDRESS))
        self.assertEqual(status, 0, f"$ {command}\n{said}")
        if expected:
            self.assertRegex(tidied(said), pattern(expected), f"$ {command}")

    @unittest.skipUnless(shutil.which("apt-get"), "not a Debian system")
    def test_every_line_of_the_page_does_what_it_says(self):
        shell = self.shell()
        typed, written = [], set()
        for language, name, body in blocks(self.page):
            with self.subTest(block=name or body):
                if name:
                    (shell.where() / name).write_text(body)
                    written.add(name)
                else:
                    self.assertEqual(language, "sh", "neither a file nor typed")
                    self.assertTrue(body.startswith("$ "), body)
                    for command, expected in commands(body):
                        self.type(shell, command, expected)
                        typed.append(command)
        self.assertEqual(written, {path.name for path in EXAMPLE.iterdir()})
        for word in ("apt-get", "cmake --install", "make", "greeter-client"):
            self.assertIn(word, "\n".join(typed))

    def test_the_files_are_those_of_the_example(self):
        shown = {name: body for _, name, body in blocks(self.page) if name}
        self.assertEqual(shown, {path.name: path.read_text() for path in EXAMPLE.iterdir()})

    def test_the_packages_are_among_those_that_the_tests_install(self):
        """So that the line has nothing to install, and none of it is tried without being named."""
        [line] = re.findall(r"(?m)^\$ apt-get install -y (.*)$", self.page)
        listed = re.sub(r"#.*", "", (ROOT / "server/packages").read_text()).split()
        self.assertLessEqual(set(shlex.split(line)), set(listed))


if __name__ == "__main__":
    unittest.main(verbosity=2)
