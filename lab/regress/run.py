"""Runs one module of CPython's own tests and prints what became of each.

The same program runs inside a box and outside. Its last line is the answer: a
mark, then JSON, compressed, since some modules have thousands of tests. What
tests themselves print comes before it and is of no account.
"""

import base64
import importlib
import json
import os
import sys
import tempfile
import unittest
import zlib

MARK = "regress:"
# The worst of them is what is told of a test with many parts.
ORDER = ["ok", "skipped", "expected failure", "failed"]


class Result(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.outcomes = {}
        self.reasons = {}

    def note(self, test, outcome, reason=""):
        name = test.id()
        before = self.outcomes.get(name, "ok")
        if ORDER.index(outcome) >= ORDER.index(before):
            self.outcomes[name] = outcome
            if reason:
                self.reasons[name] = reason[-400:]

    def addSuccess(self, test):
        super().addSuccess(test)
        self.note(test, "ok")

    def addError(self, test, err):
        super().addError(test, err)
        self.note(test, "failed", self.errors[-1][1].strip())

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note(test, "failed", self.failures[-1][1].strip())

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note(test, "skipped", reason)

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.note(test, "expected failure")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.note(test, "failed", "unexpected success")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.note(test, "failed", f"{subtest}: {err[1]}")


def run(name):
    from test import support

    # No network, no large files, nothing that asks for much processor time.
    support.use_resources = []
    support.verbose = 0
    result = Result()
    try:
        module = importlib.import_module("test." + name)
        if hasattr(module, "test_main"):
            # It prepares what its tests need, and would run them in its own way.
            support._run_suite = lambda suite: suite.run(result)
            module.test_main()
        else:
            unittest.defaultTestLoader.loadTestsFromModule(module).run(result)
    except unittest.SkipTest as skip:
        result.outcomes[name] = "skipped"
        result.reasons[name] = str(skip)
    except BaseException as error:
        result.outcomes[name] = "failed"
        result.reasons[name] = repr(error)
    return result


def main():
    # Tests write where they stand, and some of them into the directory for it.
    os.chdir(tempfile.mkdtemp())
    # For good, whatever a test does to the streams.
    out = os.dup(1)
    result = run(sys.argv[1])
    answer = json.dumps({"outcomes": result.outcomes, "reasons": result.reasons})
    packed = base64.b64encode(zlib.compress(answer.encode())).decode()
    os.write(out, f"\n{MARK}{packed}\n".encode())
    # A thread that a test left behind is not waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
