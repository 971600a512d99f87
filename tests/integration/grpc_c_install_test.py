#!/usr/bin/env python3
"""What `cmake --install` installs is what a program outside the tree needs: the libraries, their
headers, the code generator, for CMake and for pkg-config.

    TEST_BUILD    the build directory to install from
    TEST_WORK     where prefixes and projects are made; outside of them nothing is written
"""

import os
import pathlib
import re
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import greeter  # noqa: E402
from greeter import EXAMPLE, ROOT, run  # noqa: E402

BUILD = os.environ.get("TEST_BUILD", str(ROOT / "build/dev"))
STRICT = (
    "-O1 -Wall -Wextra -pedantic -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes"
    " -Werror"
)

# A component, the folder of its headers and what its functions are called; their names in the
# library must begin so, too.
LIBRARIES = [
    ("grpc-c", ROOT / "grpc-c/include/grpc-c", "GRPC_C", "grpc_c_"),
    ("payloadstore", ROOT / "store/include/payloadstore", "PLS", "pls_"),
    ("payloadstore-client", ROOT / "clients/c/include/payloadstore-client", "PLC", "plc_"),
]


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def functions(headers, prefix):
    """What the headers declare as the library's."""
    text = "".join(path.read_text() for path in sorted(headers.glob("*.h")))
    text = re.sub(r"(?s)/\*.*?\*/", "", text)
    return re.findall(rf"^{prefix}_API\b[^;(]*?\b(\w+)\(", text, re.MULTILINE)


class InstallTest(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="test-", dir=os.environ.get("TEST_WORK")))
        self.addCleanup(shutil.rmtree, self.work, ignore_errors=True)
        self.prefix = self.work / "prefix"
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CMAKE_", "PKG_CONFIG_", "MAKE", "LD_", "CFLAGS"))
        }
        self.environment["PKG_CONFIG_PATH"] = str(self.prefix / "lib/pkgconfig")
        self.environment["CMAKE_PREFIX_PATH"] = str(self.prefix)

    def install(self, component):
        run("cmake", "--install", BUILD, "--component", component, "--prefix", self.prefix)

    def here(self, *command, cwd=None):
        return run(*command, cwd=cwd or self.work, env=self.environment)

    def pkg_config(self, *arguments):
        return self.here("pkg-config", *arguments).split()

    def version(self):
        header = (ROOT / "grpc-c/include/grpc-c/version.h").read_text()
        return re.search(r'GRPC_C_VERSION +"(.*)"', header).group(1)

    def greeter_folder(self):
        folder = self.work / "greeter"
        shutil.copytree(EXAMPLE, folder)
        return folder


class Installed(InstallTest):
    def test_each_component_is_there_by_itself(self):
        for name, headers, _, _ in LIBRARIES:
            with self.subTest(component=name):
                shutil.rmtree(self.prefix, ignore_errors=True)
                self.install(name)
                found = files_below(self.prefix)
                for path in headers.glob("*.h"):
                    found.remove(f"include/{name}/{path.name}")
                found.remove(f"lib/pkgconfig/{name}.pc")
                links = [path for path in found if path.startswith(f"lib/lib{name}.so")]
                self.assertEqual(len(links), 3)
                rest = set(found) - set(links)
                if name == "grpc-c":
                    rest.remove("bin/protoc-gen-grpc-c")
                    rest = {path for path in rest if not path.startswith("lib/cmake/grpc-c/")}
                self.assertEqual(rest, set())

        shutil.rmtree(self.prefix)
        self.install("payloadstored")
        self.assertEqual(files_below(self.prefix), ["bin/payloadstored"])
        self.here(self.prefix / "bin/payloadstored", "--version")

    def test_libraries_hand_out_their_own_functions_alone(self):
        for name, headers, prefix, begins in LIBRARIES:
            self.install(name)
            library = self.prefix / f"lib/lib{name}.so"
            with self.subTest(library=name):
                symbols = self.here("nm", "-D", "--defined-only", library).split()[2::3]
                self.assertEqual(sorted(symbols), sorted(functions(headers, prefix)))
                self.assertTrue(all(symbol.startswith(begins) for symbol in symbols))
                soname = re.search(r"SONAME +(\S+)", self.here("objdump", "-p", library)).group(1)
                self.assertRegex(soname, rf"^lib{name}\.so\.\d+\.\d+$")
                self.assertTrue((library.parent / soname).exists())

    def test_headers_stand_alone_in_c_and_in_c_plus_plus(self):
        for name, headers, _, _ in LIBRARIES:
            self.install(name)
            flags = self.pkg_config("--cflags", name)
            for header in sorted(path.name for path in headers.glob("*.h")):
                with self.subTest(header=f"{name}/{header}"):
                    for language, suffix in [("-std=c11", "c"), ("-std=c++11", "cc")]:
                        source = self.work / f"alone.{suffix}"
                        source.write_text(f"#include <{name}/{header}>\nint alone(void);\n")
                        self.here(
                            "cc" if suffix == "c" else "c++", language, "-pedantic", "-Wall",
                            "-Wextra", "-Wundef", "-Werror", "-fsyntax-only", source, *flags,
                        )

    def test_every_function_links_from_c_plus_plus(self):
        for name, headers, prefix, _ in LIBRARIES:
            self.install(name)
            called = functions(headers, prefix)
            self.assertGreater(len(called), 5)
            source = self.work / "all.cc"
            source.write_text(
                "".join(f"#include <{name}/{path.name}>\n" for path in sorted(headers.glob("*.h")))
                + "typedef void (*function)(void);\nfunction volatile sink;\nint main()\n{\n"
                + "".join(f"    sink = reinterpret_cast<function>(&{one});\n" for one in called)
                + "}\n"
            )
            with self.subTest(library=name):
                self.here(
                    "c++", "-Wall", "-Wextra", "-Werror", source, "-o", self.work / "all",
                    *self.pkg_config("--cflags", "--libs", name),
                )

    def test_versions_agree(self):
        self.install("grpc-c")
        version = self.version()
        plugin = self.pkg_config("--variable=protoc_plugin", "grpc-c")[0]
        self.assertEqual(self.pkg_config("--modversion", "grpc-c"), [version])
        self.assertEqual(self.here(plugin, "--version"), f"protoc-gen-grpc-c {version}\n")
        numbers = re.findall(
            r"GRPC_C_VERSION_\w+ +(\d+)", (ROOT / "grpc-c/include/grpc-c/version.h").read_text()
        )
        self.assertEqual(".".join(numbers), version)
        (self.work / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.25)\nproject(version LANGUAGES C)\n"
            f"find_package(grpc-c {version} EXACT REQUIRED)\n"
        )
        self.here("cmake", "-B", "build")
        (self.work / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.25)\nproject(version LANGUAGES C)\n"
            "find_package(grpc-c 9 REQUIRED)\n"
        )
        with self.assertRaisesRegex(AssertionError, "grpc-c"):
            self.here("cmake", "-B", "build")

    def test_what_was_installed_may_be_moved(self):
        self.install("grpc-c")
        moved = self.work / "elsewhere"
        self.prefix.rename(moved)
        self.environment["PKG_CONFIG_PATH"] = str(moved / "lib/pkgconfig")
        folder = self.greeter_folder()
        self.here("make", cwd=folder)
        greeter.check(self, folder / "greeter-server", folder / "greeter-client", folder)

    def test_greeter_builds_by_pkg_config(self):
        self.install("grpc-c")
        folder = self.greeter_folder()
        self.here("make", f"CFLAGS={STRICT}", cwd=folder)
        greeter.check(self, folder / "greeter-server", folder / "greeter-client", folder)
        # The same header, from C++.
        (folder / "use.cc").write_text(
            '#include "greeter.grpc-c.h"\n'
            "int main()\n{\n"
            "    return hello__greeter__service.n_methods == 2 &&\n"
            "        hello__greeter__say_hello__sync && hello__greeter__chat__open ? 0 : 1;\n}\n"
        )
        self.here(
            "c++", "-std=c++11", "-pedantic", "-Wall", "-Wextra", "-Wno-address", "-Werror",
            "use.cc", "greeter.grpc-c.o", "greeter.pb-c.o", "-o", "use",
            *self.pkg_config("--cflags", "--libs", "grpc-c"),
            f"-Wl,-rpath,{self.prefix}/lib",
            cwd=folder,
        )
        self.here("./use", cwd=folder)

    def test_greeter_builds_by_cmake(self):
        self.install("grpc-c")
        folder = self.greeter_folder()
        self.here("cmake", "-B", "build", f"-DCMAKE_C_FLAGS={STRICT}", cwd=folder)
        self.here("cmake", "--build", "build", cwd=folder)
        greeter.check(self, folder / "build/greeter-server", folder / "build/greeter-client", folder)

    def test_greeter_builds_with_grpc_c_as_a_part(self):
        folder = self.greeter_folder()
        lists = folder / "CMakeLists.txt"
        text = lists.read_text()
        self.assertIn("find_package(grpc-c REQUIRED)\n", text)
        part = (
            "include(FetchContent)\n"
            f"FetchContent_Declare(grpc-c SOURCE_DIR {ROOT} SOURCE_SUBDIR grpc-c)\n"
            "FetchContent_MakeAvailable(grpc-c)\n"
        )
        lists.write_text(text.replace("find_package(grpc-c REQUIRED)\n", part))
        self.here("cmake", "-G", "Ninja", "-B", "build", cwd=folder)
        self.here("cmake", "--build", "build", "-j2", cwd=folder)
        greeter.check(self, folder / "build/greeter-server", folder / "build/greeter-client", folder)

    def test_imports_and_well_known_types_build_by_cmake(self):
        """Across files, packages and libraries: what unit/plugin_well_known.c does in the tree."""
        self.install("grpc-c")
        for name in ("plugin_well_known.proto", "plugin_well_known.c", "plugin_other.proto"):
            shutil.copy(ROOT / "tests/unit" / name, self.work / name)
        (self.work / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.25)\n"
            "project(well_known LANGUAGES C)\n"
            "find_package(grpc-c REQUIRED)\n"
            "pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)\n"
            "grpc_c_generate(others PROTOS plugin_other.proto\n"
            + "".join(
                f"    google/protobuf/{name}.proto\n"
                for name in "any duration empty field_mask struct timestamp wrappers".split()
            )
            + ")\n"
            "grpc_c_generate(events PROTOS plugin_well_known.proto)\n"
            "target_link_libraries(events PUBLIC others)\n"
            "add_executable(well_known plugin_well_known.c)\n"
            "target_link_libraries(well_known PRIVATE events PkgConfig::CMOCKA)\n"
        )
        self.here("cmake", "-B", "build", f"-DCMAKE_C_FLAGS={STRICT}")
        self.here("cmake", "--build", "build", "-j2")
        self.assertIn("5 test(s) run", self.here("build/well_known"))


class Example(unittest.TestCase):
    """The example as it is built in the tree, under whatever sanitizer that is."""

    def test_greeter_greets(self):
        with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_WORK")) as work:
            programs = pathlib.Path(BUILD).resolve() / "tests"
            greeter.check(self, programs / "greeter-server", programs / "greeter-client", work)


if __name__ == "__main__":
    unittest.main(verbosity=2)
