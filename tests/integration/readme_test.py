#!/usr/bin/env python3
"""The README tells the truth: its session, typed line by line to a new server, gives what the page
shows.

In a block that begins with ```sh a line that begins with "$ " is typed, and what follows up to the
next one is what must come back; a line "..." stands for any lines, and "..." within a line for any
text. Blocks without such a line are not run.
"""

import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from payloadstored import (  # noqa: E402
    ROOT,
    SOON,
    ServerTest,
    clean_environment,
    credentials,
    make_certificates,
    server_binary,
    tool,
)

ADDRESS = "127.0.0.1:50051"


def sessions(text):
    """(command, expected output) of every command in the page."""
    found = []
    for block in re.findall(r"(?ms)^```sh\n(.*?)^```$", text):
        command, expected = None, []
        for line in block.splitlines():
            if line.startswith("$ "):
                if command:
                    found.append((command, expected))
                command, expected = line[2:], []
            elif command:
                expected.append(line)
        if command:
            found.append((command, expected))
    return found


def pattern(lines):
    """A regular expression for the lines with their "..."."""
    parts = []
    for line in lines:
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(r"[^\n]*".join(re.escape(part) for part in line.split("...")) + r"\n")
    return "".join(parts)


class ReadmeTest(ServerTest):
    def test_the_session_gives_what_the_page_shows(self):
        page = (ROOT / "README.md").read_text()
        commands = sessions(page)
        typed = " ".join(command for command, _ in commands)
        for word in ("list", "Append", "Read", "Seal", "CompactSealed", "Stat", "ghz", "-cacert"):
            self.assertIn(word, typed)

        # The default address may be taken on this machine.
        server = self.serve()
        where = make_certificates(self.work / "certificates")
        mutual = self.serve(
            f"--tls-cert={where}/server.pem",
            f"--tls-key={where}/server.key",
            f"--tls-client-ca={where}/ca.pem",
            data_dir=self.work / "mutual",
            secure=credentials(where, certificate="client"),
        )
        environment = clean_environment()
        environment["PATH"] = os.path.dirname(tool("grpcurl")) + ":" + environment["PATH"]
        for command, expected in commands:
            address = mutual.address if "-cacert" in command else server.address
            done = subprocess.run(
                ["bash", "-c", command.replace(ADDRESS, address)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.work,
                env=environment,
                text=True,
                timeout=4 * SOON,
            )
            said = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines()) + "\n"
            with self.subTest(command=command):
                self.assertEqual(done.returncode, 0, said)
                if expected:
                    self.assertRegex(said, r"\A" + pattern(expected) + r"\Z")

    def test_the_flags_are_those_that_help_shows(self):
        page = (ROOT / "README.md").read_text()
        shown = re.findall(r"(?m)^\| `--([\w-]+) [A-Z]+` \| `?([^|`]+?)`? \|", page)
        done = subprocess.run(
            [server_binary(), "--help"], capture_output=True, text=True, env=clean_environment()
        )
        told = re.findall(r"(?s)--([\w-]+)=[A-Z]+.*?default:\s+(\S+)", done.stdout)
        self.assertGreater(len(told), 5)
        self.assertEqual(sorted(shown), sorted(told))

    def test_the_pages_links_lead_somewhere(self):
        for page in [ROOT / "README.md", *ROOT.glob("*/*.md")]:
            for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text()):
                with self.subTest(page=page.name, target=target):
                    self.assertTrue((page.parent / target).exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
