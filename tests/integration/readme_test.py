#!/usr/bin/env python3
"""The README tells the truth: its session, typed line by line to a new server, gives what the page
shows. lib/page.py says how a page is read.
"""

import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from page import blocks, commands, pattern, tidied  # noqa: E402
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


class ReadmeTest(ServerTest):
    def test_the_session_gives_what_the_page_shows(self):
        page = (ROOT / "README.md").read_text()
        session = [
            typed
            for language, _, body in blocks(page)
            if language == "sh"
            for typed in commands(body)
        ]
        typed = " ".join(command for command, _ in session)
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
        for command, expected in session:
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
            said = tidied(done.stdout)
            with self.subTest(command=command):
                self.assertEqual(done.returncode, 0, said)
                if expected:
                    self.assertRegex(said, pattern(expected))

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
        # Of what is two folders down, that of build/ is not ours.
        for page in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("[!b]*/*/*.md")]:
            for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text()):
                with self.subTest(page=page.relative_to(ROOT), target=target):
                    self.assertTrue((page.parent / target).exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
