#!/usr/bin/env python3
"""Adds up JUnit reports of ctest: shows what tests had to report, and ends with the totals.

    totals.py [--trouble N] REPORT.xml...

Exit status 0 where tests ran and nothing failed.
"""

import argparse
import os
import sys
import xml.etree.ElementTree as ElementTree


def report_of(case):
    """What a test printed between its report marks, for people to read also when it passed."""
    reported = []
    inside = False
    for line in (case.findtext("system-out") or "").splitlines():
        if line == "--- report":
            inside = True
        elif line == "--- end":
            inside = False
        elif inside:
            reported.append(line)
    return reported


def says_skip(case):
    """Whether a test ended by itself with the status that means: not possible on this machine."""
    skipped = case.find("skipped")
    return skipped is not None and "SKIP_RETURN_CODE" in skipped.get("message", "")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--trouble", type=int, default=0, help="failures outside the tests")
    parser.add_argument("reports", nargs="*")
    options = parser.parse_args()

    passed, failed = 0, options.trouble
    failures, skips = [], []
    for path in options.reports:
        if not os.path.exists(path):  # a shell's pattern that matched nothing
            continue
        preset = os.path.splitext(os.path.basename(path))[0]
        try:
            cases = list(ElementTree.parse(path).getroot().iter("testcase"))
        except ElementTree.ParseError as error:
            failed += 1
            failures.append(f"{preset}: ctest's report cannot be read: {error}")
            continue
        for case in cases:
            name = f"{preset}: {case.get('name')}"
            # Whatever else did not run, say for a missing program, has proved nothing.
            if says_skip(case):
                skips.append(name)
            elif case.get("status") == "run":
                passed += 1
                lines = report_of(case)
                if lines:
                    print(f"\n{name}")
                    print("\n".join(f"  {line}" for line in lines))
            else:
                failed += 1
                failures.append(f"{name} ({case.get('status')})")

    if skips:
        print("\nSkipped, as not possible on this machine:")
        print("\n".join(f"  {name}" for name in skips))
    if failures:
        print("\nFailed:")
        print("\n".join(f"  {name}" for name in failures))
    if passed + failed == 0:
        print("\nNo test matches.")
    print(f"\n{passed} passed, {failed} failed")
    return 0 if passed > 0 and failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
