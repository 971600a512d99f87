#!/usr/bin/env python3
"""The lint finds what it is there to find: each check fails on a small tree that breaks its rule,
and passes on one that does not."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

LINT = pathlib.Path(__file__).resolve().parent
ROOT = LINT.parent.parent


class LintTest(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="lint-test-"))
        self.addCleanup(shutil.rmtree, self.root)
        subprocess.run(["git", "init", "--quiet", self.root], check=True)
        for name in (".clang-format", ".clang-tidy"):
            shutil.copy(ROOT / name, self.root / name)

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def lint(self, check, *arguments):
        done = subprocess.run(
            [LINT / check, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return done.returncode, done.stdout

    def assert_passes(self, check, *arguments):
        status, said = self.lint(check, *arguments)
        self.assertEqual(status, 0, said)

    def assert_finds(self, where, what, check, *arguments):
        status, said = self.lint(check, *arguments)
        self.assertNotEqual(status, 0)
        lines = [line for line in said.splitlines() if where in line and what in line]
        self.assertTrue(lines, f"no line with {where} and {what} in:\n{said}")

    def includes(self):
        return "includes", "--root", self.root

    def test_an_empty_list_of_files_fails_every_check(self):
        shutil.rmtree(self.root / ".git")
        for name in (".clang-format", ".clang-tidy"):
            (self.root / name).unlink()
        subprocess.run(["git", "init", "--quiet", self.root], check=True)
        self.assert_finds("lint", "no file", "format", self.root)
        self.assert_finds("lint", "no file", "scripts", self.root)
        self.assert_finds("lint", "no file", *self.includes())
        with tempfile.TemporaryDirectory() as build:
            (pathlib.Path(build) / "compile_commands.json").write_text("[]")
            self.assert_finds("lint", "no file", "tidy", build, self.root)

    def test_format_finds_a_badly_laid_out_line(self):
        self.write("store/src/a.c", "int a(void);\n")
        self.assert_passes("format", self.root)
        self.write("store/src/a.c", "int   a( void );\n")
        self.assert_finds("store/src/a.c:1:", "clang-format", "format", self.root)

    def guarantees(self, *known):
        """With these tests known to ctest."""
        (self.root / "tests.json").write_text(json.dumps({"tests": [{"name": n} for n in known]}))
        return "guarantees", self.root / "tests.json", self.root

    def test_guarantees_finds_proofs_that_are_not_there(self):
        self.assert_finds("lint", "no file", *self.guarantees())
        self.write("tests/unit/store_a.c", "void b(void);\nTEST(c)\n")
        self.write("store/README.md", "`store_b.c`\n| `store_a`, `store_a.c`, `fault_d` (coming) |\n")
        self.assert_passes(*self.guarantees("store_a"))
        self.assert_finds("README.md:2:", "is no test", *self.guarantees())
        self.assert_finds("README.md:2:", "take (coming)", *self.guarantees("store_a", "fault_d"))
        # Defined, and not listed.
        self.write("store/GUARANTEES.md", "\n| `store_a.b` |\n")
        self.assert_finds("GUARANTEES.md:2:", "has no b", *self.guarantees("store_a"))

    def tidy(self, *built):
        build = self.root / ".build"
        build.mkdir(exist_ok=True)
        entries = [
            {
                "directory": str(build),
                "file": str(self.root / path),
                "command": f"cc -c {self.root / path}",
            }
            for path in built
        ]
        (build / "compile_commands.json").write_text(json.dumps(entries))
        return "tidy", build, self.root

    def test_tidy_finds_a_branch_without_braces(self):
        self.write("store/src/a.c", "int a(int b)\n{\n    return b;\n}\n")
        self.assert_passes(*self.tidy("store/src/a.c"))
        self.write("store/src/a.c", "int a(int b)\n{\n    if (b)\n        b = 1;\n    return b;\n}\n")
        self.assert_finds("store/src/a.c:3:", "braces", *self.tidy("store/src/a.c"))

    def test_tidy_finds_a_file_that_nothing_builds(self):
        self.write("store/src/a.c", "int a(void);\n")
        self.write("store/src/b.c", "int b(void);\n")
        self.assert_finds("store/src/b.c:1:", "not built", *self.tidy("store/src/a.c"))

    def test_scripts_finds_an_unquoted_variable_and_an_unused_import(self):
        self.write("tests/a", '#!/usr/bin/env bash\necho "$1"\n')
        self.write("tests/b.py", "print(1)\n")
        self.assert_passes("scripts", self.root)
        self.write("tests/a", "#!/usr/bin/env bash\necho $1\n")
        self.assert_finds("tests/a:2:", "SC2086", "scripts", self.root)
        self.write("tests/a", '#!/usr/bin/env bash\necho "$1"\n')
        self.write("tests/b.py", "import os\n")
        self.assert_finds("tests/b.py:1:", "unused", "scripts", self.root)

    def test_includes_knows_each_part_s_neighbours(self):
        self.write("store/src/own.h", "")
        self.write("store/src/other.c", "")
        for path, good, bad in [
            ("store/src/a.c", '"own.h"', '"grpc-c/server.h"'),
            ("store/src/a.c", "<isa-l.h>", "<json-c/json.h>"),
            ("store/src/a.c", "<sys/uio.h>", "<nonsense.h>"),
            ("store/src/a.c", '"payloadstore/error.h"', '"elsewhere.h"'),
            ("store/include/payloadstore/a.h", '"payloadstore/error.h"', "<isa-l.h>"),
            ("grpc-c/src/a.c", "<grpc/grpc.h>", '"payloadstore/payloadstore.h"'),
            ("grpc-c/include/grpc-c/a.h", "<protobuf-c/protobuf-c.h>", "<grpc/grpc.h>"),
            ("grpc-c/plugin/a.c", "<protobuf-c/protobuf-c.h>", "<grpc/grpc.h>"),
            ("server/src/a.c", '"grpc-c/server.h"', "<grpc/grpc.h>"),
            ("server/src/a.c", '"payloadstore/payloadstore.h"', "<grpc/support/log.h>"),
            ("server/src/a.c", '"grpc/health/v1/health.pb-c.h"', '"own.h"'),
            ("clients/c/a.c", '"grpc-c/client.h"', '"payloadstore/payloadstore.h"'),
            ("clients/c/a.c", '"payloadstore-client/client.h"', "<grpc/grpc.h>"),
            ("clients/c/include/a.h", '"payloadstore-client/error.h"', '"grpc-c/client.h"'),
            ("clients/c/include/a.h", "<stdint.h>", '"payloadstore/v1/payload_store.pb-c.h"'),
            ("clients/cli/a.c", '"payloadstore-client/client.h"', '"payloadstore/error.h"'),
            ("server/src/a.c", '"payloadstore/error.h"', '"payloadstore-client/client.h"'),
            ("server/src/a.c", '"some_descriptor_set.h"', "<isa-l.h>"),
            ("tests/unit/a.c", "<cmocka.h>", "<grpc/grpc.h>"),
            ("tests/unit/a.c", '"own.h"', '"elsewhere.h"'),
            ("tests/unit/grpc_c_a.c", "<grpc/grpc.h>", "<nonsense.h>"),
            ("tests/bench/a.c", "<grpc/grpc.h>", "<nonsense.h>"),
        ]:
            with self.subTest(path=path, good=good, bad=bad):
                self.write(path, f"#include {good}\n")
                self.assert_passes(*self.includes())
                self.write(path, f"/* a\n * b */\n#include {bad}\n")
                self.assert_finds(f"{path}:3:", bad.strip('<>"'), *self.includes())
                (self.root / path).unlink()

    def test_includes_finds_core_s_types_in_public_headers(self):
        header = "grpc-c/include/grpc-c/a.h"
        self.write("grpc-c/src/a.c", "")
        self.write(header, "/* grpc_call is core's */\ntypedef struct grpc_c_call grpc_c_call;\n")
        self.assert_passes(*self.includes())
        self.write(header, "struct grpc_c_a {\n    grpc_slice slice;\n};\n")
        self.assert_finds(f"{header}:2:", "grpc_slice", *self.includes())

    def test_includes_finds_types_beneath_the_client_in_its_public_headers(self):
        header = "clients/c/include/payloadstore-client/a.h"
        self.write("clients/c/src/a.c", "")
        self.write(header, "/* grpc_c_channel is the shim's */\ntypedef struct plc_a plc_a;\n")
        self.assert_passes(*self.includes())
        for name in ("struct grpc_c_channel", "Payloadstore__V1__PayloadRef", "ProtobufCMessage"):
            self.write(header, f"struct plc_a {{\n    {name} *a;\n}};\n")
            self.assert_finds(f"{header}:2:", name.split()[-1], *self.includes())

    def test_includes_finds_a_system_call_outside_its_file(self):
        self.write("store/src/sys.c", "void a(void)\n{\n    fdatasync(1);\n}\n")
        self.write(
            "store/src/b.c",
            '/* rename() is sys.c\'s */\nvoid b(void)\n{\n    say("open(");\n    plsi_sys_pread(1);\n'
            "    ops->rename(1);\n}\n",
        )
        self.assert_passes(*self.includes())
        for call in ("pread", "pwritev", "fdatasync", "open", "rename"):
            self.write("store/src/b.c", f"void b(void)\n{{\n    {call}(1);\n}}\n")
            self.assert_finds("store/src/b.c:3:", call, *self.includes())

    def test_includes_finds_generated_code_that_knows_too_much(self):
        self.write("store/src/a.c", "")
        with tempfile.TemporaryDirectory() as build:
            self.assert_finds(build, "no generated code", *self.includes(), "--build", build)
            path = os.path.join(build, "a.grpc-c.c")
            with open(path, "w") as file:
                file.write('#include "grpc-c/service.h"\n#include "a.pb-c.h"\n')
            self.assert_passes(*self.includes(), "--build", build)
            with open(path, "w") as file:
                file.write("#include <grpc/grpc.h>\n")
            self.assert_finds(f"{path}:1:", "grpc/grpc.h", *self.includes(), "--build", build)

    def test_includes_finds_a_newcomer_at_the_top_of_the_tree(self):
        self.write("store/src/a.c", "")
        self.write(".editorconfig", "")
        self.assert_passes(*self.includes())
        self.write("notes/plan.md", "")
        self.assert_finds("notes:1:", "top", *self.includes())


if __name__ == "__main__":
    unittest.main(verbosity=2)
