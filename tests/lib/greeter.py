"""grpc-c's example, grpc-c/example/greeter: its programs run, and what they must say."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "grpc-c/example/greeter"
PATIENCE = 120.0  # for whatever does not take that long


def run(*command, **more):
    """What a command says, on either stream; an AssertionError where it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **more,
    )
    if done.returncode != 0:
        raise AssertionError(f"{command} ends with {done.returncode}:\n{done.stdout}")
    return done.stdout


def check(test, server, client, work):
    """The server answers the client in both shapes, refuses what it refuses, and ends well."""
    address = "unix:greeter.sock"  # relative: a path to a socket may not be long
    process = subprocess.Popen(
        # A test that is killed takes its server with it.
        ["setpriv", "--pdeathsig", "KILL", server, address],
        cwd=work,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = run(client, address, "Ada", "Grace", cwd=work, timeout=PATIENCE)
        test.assertEqual(said, "Hello, Ada!\nWelcome, Ada!\nWelcome, Grace!\n")
        with test.assertRaisesRegex(AssertionError, "INVALID_ARGUMENT: the name is too long"):
            run(client, address, "x" * 100, cwd=work, timeout=PATIENCE)
        with test.assertRaisesRegex(AssertionError, "the name is too long") as refused:
            run(client, address, "y", "x" * 100, cwd=work, timeout=PATIENCE)
        test.assertIn("Hello, y!\nWelcome, y!\n", str(refused.exception))
        process.terminate()
        complaints = process.communicate(timeout=PATIENCE)[1]
        test.assertEqual((process.returncode, complaints), (0, ""))
    finally:
        if process.poll() is None:
            process.kill()
            sys.stderr.write(process.communicate()[1])
