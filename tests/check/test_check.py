"""The whole: runs under several kernels, and what is said of them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from emu.check.aftermath import Did
from emu.check.lines import render
from emu.check.report import Report
from emu.check.rescue import Result, Way
from emu.check.run import Patience, check_mremap
from emu.check.text import report_lines
from emu.check.verdict import Noise, Odd, Verdict
from emu.limits import Limits, Question
from emu.machine import MachineConfig
from emu.sweep import Coping

APART, TOGETHER = "2.6.6-rmap39", "6.18"
"""A kernel on which areas that were first written apart stay apart, and one on which they join."""
SCHEMA = json.loads(Path("emu/check/schema/check-1.json").read_text())
ENV = {"PATH": "/usr/bin:/bin"}


def check(*argv: str | Path, kernels: tuple[str, ...] = (APART, TOGETHER), **more: Any) -> Report:
    more.setdefault("ways", ())
    return check_mremap(MachineConfig(env=ENV), [str(word) for word in argv], kernels=kernels, **more)


@cache
def p1(ways: bool = False) -> Report:
    return check("images/p1", "4", ways=tuple(Way) if ways else ())


def text_of(report: Report) -> str:
    return "\n".join(render(report_lines(report), width=None, color=False))


def verdicts(report: Report) -> dict[str, Verdict]:
    return {judged.trial.title: judged.verdict for judged in report.judged}


class TestWhatTheProgramDid:
    """One program, one refusal, many reactions."""

    @pytest.mark.parametrize(
        ("reaction", "verdict", "next_deeds", "outcome"),
        [
            ("", Verdict.COPES, [], []),
            ("copy", Verdict.COPES, [Did.FELL_BACK], []),
            ("pieces", Verdict.COPES, [Did.RETRIED], []),
            ("report", Verdict.BREAKS, [Did.REPORTED], [Did.REPORTED, Did.DIFFERENT_OUTPUT]),
            ("output", Verdict.BREAKS, [], [Did.DIFFERENT_OUTPUT]),
            ("crash", Verdict.BREAKS, [], [Did.CRASHED]),
            ("file", Verdict.BREAKS, [], [Did.LOST_DATA]),
            ("fixed", Verdict.BREAKS, [Did.LOST_DATA], [Did.DIFFERENT_OUTPUT, Did.LOST_DATA]),
            ("thread", Verdict.BREAKS, [], [Did.DIFFERENT_OUTPUT]),
            ("fork", Verdict.BREAKS, [], [Did.REPORTED]),
        ],
    )
    def test_reaction(
        self, reacts: Path, reaction: str, verdict: Verdict, next_deeds: list[Did], outcome: list[Did]
    ) -> None:
        report = check(reacts, reaction)
        assert verdicts(report) == {APART: verdict, TOGETHER: Verdict.SAFE}
        assert report.exit_status == (1 if verdict is Verdict.BREAKS else 0)
        [finding] = report.findings
        assert [deed.did for deed in finding.deeds] == next_deeds
        assert [deed.did for deed in report.judged[0].deeds] == outcome

    def test_the_table_names_it(self, reacts: Path) -> None:
        lines = text_of(check(reacts, "copy")).splitlines()
        happened = f"1 call failed (fell back); it behaves as on {TOGETHER} all the same"
        assert f"{APART}  copes    1 EFAULT  {happened}" in lines

    def test_where_it_crashed(self, reacts: Path, line_of: dict[str, int]) -> None:
        [deed] = check(reacts, "crash").judged[0].deeds
        assert "SIGSEGV at 0xfff in main" in deed.evidence and f"reacts.c:{line_of['the crash']}" in deed.evidence


class TestFinding:
    def test_site_errno_and_boundary(self, reacts: Path, line_of: dict[str, int]) -> None:
        [finding] = check(reacts).findings
        assert finding.site is not None and finding.site.line == line_of["the call"]
        assert (finding.error, finding.reason) == ("EFAULT", "range spans areas")
        assert finding.boundary is not None and finding.boundary.address == 0x3_0000_1000

    def test_the_same_failure_on_several_kernels_is_one_finding(self) -> None:
        """P2 stays apart with Andrea Arcangeli's sharing too."""
        report = check("images/p2", kernels=(APART, "2.6.5-aa", TOGETHER))
        [finding] = report.findings
        assert [where.judged.trial.kernel for where in finding.wheres] == [APART, "2.6.5-aa"]
        assert [trial.kernel for trial in report.works_on(finding)] == [TOGETHER]

    def test_what_would_have_saved_it(self) -> None:
        """P1: sharing and anonmm make one area of it; 6.17 moves many areas but does not grow them."""
        [finding] = p1(ways=True).findings
        results = {rescue.way: rescue.result for rescue in finding.wheres[0].rescues}
        assert results == {
            Way.SHARING: Result.WORKS,
            Way.ANONMM: Result.WORKS,
            Way.MULTI_AREA: Result.FAILS,
            Way.SPLIT: Result.WORKS,
        }
        behaves = {rescue.way: rescue.same_behaviour for rescue in finding.wheres[0].rescues}
        assert behaves == {Way.SHARING: True, Way.ANONMM: True, Way.MULTI_AREA: False, Way.SPLIT: False}

    def test_rules_that_are_in_force_are_not_tried(self) -> None:
        report = check("images/remap_toomuch", kernels=("2.6.6-anonmm", "2.6.7"), ways=(Way.SHARING, Way.ANONMM))
        [finding] = report.findings
        rescues = {rescue.way: rescue.result for rescue in finding.wheres[0].rescues}
        assert rescues == {Way.SHARING: Result.SAME_RULES, Way.ANONMM: Result.WORKS}

    def test_what_fails_everywhere_is_the_programs_own_business(self) -> None:
        report = check("images/vmscript", "m:0:2:rw", "p:1:1:r", "v:0:2:3:M")
        assert report.verdict == "safe" and set(verdicts(report).values()) == {Verdict.SAFE}
        [finding] = report.findings
        assert finding.is_everywhere and finding.boundary is not None and finding.boundary.reason == "flags"
        assert "on every kernel alike: the program's own business" in text_of(report)


    def test_bad_arguments_are_no_matter_of_areas(self) -> None:
        told = text_of(check("images/vmscript", "m:0:2:rw", "v:0:2:0:M", ways=tuple(Way)))
        assert "EINVAL: mremap in remap (vmscript) vmscript.c:" in told and "new length 0" in told
        assert "  areas " not in told and "saved by no   rules of the 4 that were tried: still EINVAL" in told


class TestVerdicts:
    def test_the_newest_kernel_without_failures_is_the_reference(self) -> None:
        assert check("images/p1", "4", kernels=(TOGETHER, APART, "2.6.7")).reference.kernel == TOGETHER

    def test_or_else_the_one_with_the_fewest(self) -> None:
        """Buffers joined by a move are one area on no kernel that has anon_vmas."""
        assert check("images/remap_toomuch", kernels=("2.6.6-anonmm", "6.1", "6.18")).reference.kernel == "2.6.6-anonmm"

    def test_a_program_that_never_calls(self) -> None:
        report = check("images/hello")
        assert (report.verdict, report.exit_status, report.calls_mremap) == ("safe", 0, False)
        assert "the program never calls mremap" in text_of(report)

    def test_a_program_that_runs_for_ever(self) -> None:
        loop = ("/bin/sh", "-c", "while :; do :; done")
        for patience, which in ((Patience(virtual_ns=100_000_000), "virtual"), (Patience(wall_s=1.0), "wall")):
            report = check(*loop, kernels=(TOGETHER,), patience=patience)
            assert (report.verdict, report.exit_status) == ("unknown", 3)
            assert report.judged[0].trial.outcome.timed_out == which
            assert "did not end within" in text_of(report)

    def test_chance_in_the_output(self) -> None:
        report = check("/bin/sh", "-c", "images/p1 4; od -An -N4 -x /dev/urandom")
        assert report.noise is Noise.OUTPUT
        assert verdicts(report)[APART] is Verdict.UNKNOWN and report.exit_status == 3
        assert "depends on random numbers" in text_of(report)

    def test_chance_that_changes_nothing_but_the_output(self) -> None:
        """Same exit status, one refusal, and both kernels print the same with the same random numbers."""
        report = check("/bin/sh", "-c", "images/p1 4 >/dev/null; od -An -N4 -x /dev/urandom")
        assert verdicts(report) == {APART: Verdict.COPES, TOGETHER: Verdict.SAFE}

    def test_output_that_differs_for_other_reasons(self) -> None:
        """vmscript prints its areas, and nobody moves the two that stay apart."""
        report = check("images/vmscript", *"m:0:1:rw w:0 m:1:1:rwx w:1 p:1:1:rw m:9:1:rw v:9:1:2:M".split())
        assert verdicts(report) == {APART: Verdict.UNKNOWN, TOGETHER: Verdict.SAFE}
        assert "no mremap went otherwise" in report.judged[0].reasons[0]


class TestQuestions:
    def test_failure_at_call_n_is_exactly_call_n(self) -> None:
        question = Question("third", Limits(fail=("mremap:ENOMEM@3",)))
        report = check("images/remap_realloc", kernels=(TOGETHER,), questions=[question])
        plain, failing = report.judged
        assert plain.trial.run.nr_failed == {} and failing.trial.run.nr_failed == {"ENOMEM": 1}
        assert [call.nr for call in failing.trial.run.calls if call.failed] == [3]
        assert (plain.verdict, failing.verdict) == (Verdict.SAFE, Verdict.COPES)
        [finding] = report.findings
        assert finding.is_injected

    def test_a_failure_that_never_comes_is_told(self) -> None:
        question = Question("far", Limits(fail=("mremap:ENOMEM@99",)))
        report = check("images/p1", "2", kernels=(TOGETHER,), questions=[question])
        assert report.idle_failures == ["mremap:ENOMEM@99"] and report.verdict == "safe"

    def test_always_moving(self) -> None:
        report = check("images/p1", "2", kernels=(TOGETHER,), questions=[Question("moving", Limits(always_move=True))])
        moving = report.judged[1]
        assert (moving.verdict, [odd.odd for odd in moving.odd_calls]) == (Verdict.COPES, [Odd.MOVED])
        assert moving.trial.run.calls[0].ret != moving.trial.run.calls[0].addr

    def test_another_call_that_fails(self) -> None:
        """With twelve areas p1 does not come to its mremap where each page is one; where they join it does."""
        question = Question("few", Limits(max_map_count=12))
        report = check("images/p1", "16", questions=[question])
        assert verdicts(report) == {
            APART: Verdict.BREAKS, TOGETHER: Verdict.SAFE, f"{APART} [few]": Verdict.BREAKS,
            f"{TOGETHER} [few]": Verdict.SAFE,
        }  # fmt: skip
        few = report.of_question("few")[0]
        assert [refusal.name for refusal in few.refusals] == ["mmap"]
        assert [odd.odd for odd in few.odd_calls] == [Odd.MISSING]

    def test_limits_belong_into_questions(self) -> None:
        with pytest.raises(ValueError, match="questions"):
            check_mremap(MachineConfig(fail=("mremap:ENOMEM@1",)), ["images/hello"], kernels=[TOGETHER])


class TestSweep:
    def test_each_call_fails_in_turn(self) -> None:
        """The arena is copied when it cannot grow."""
        report = check("images/remap_arena", kernels=("one-anon-vma",), sweep_errors=("ENOMEM",))
        assert report.sweep is not None
        assert [row.call for row in report.sweep.rows] == [1, 2]
        assert {row.coping for row in report.sweep.rows} == {Coping.SAME_OUTPUT} and report.verdict == "safe"

    def test_a_crash_breaks(self, reacts: Path) -> None:
        report = check(reacts, "crash", kernels=(TOGETHER,), sweep_errors=("EFAULT", "ENOMEM"))
        assert report.sweep is not None
        assert [(row.call, row.error, row.coping) for row in report.sweep.rows] == [
            (1, "EFAULT", Coping.CRASHED), (1, "ENOMEM", Coping.CRASHED),
        ]  # fmt: skip
        assert (report.verdict, report.judged[0].verdict) == ("breaks", Verdict.SAFE)
        assert "it does not cope with 2 of 2 failures" in text_of(report)


class TestForms:
    def test_a_second_run_gives_the_same(self) -> None:
        again = check("images/p1", "4", ways=tuple(Way))
        assert json.dumps(again.as_json()) == json.dumps(p1(ways=True).as_json())
        assert text_of(again) == text_of(p1(ways=True))

    def test_schema(self, reacts: Path) -> None:
        jsonschema.Draft202012Validator.check_schema(SCHEMA)
        questions = [Question("moving", Limits(always_move=True, fail=("mmap:ENOMEM@4",)))]
        for report in (
            p1(ways=True),
            check(reacts, "copy", questions=questions, sweep_errors=("ENOMEM",)),
            check(reacts, "fixed"),
            check(reacts, "crash"),
            check("images/remap_multi"),
            check("images/vmscript", f"v:~{0xFFFF << 48}:~{(1 << 64) - 1}:~1:M", f"v:0:~{(1 << 64) - 1}:~4095:255:0~1"),
            check("images/hello", kernels=(TOGETHER,)),
        ):
            jsonschema.validate(report.as_json(), SCHEMA)
            json.dumps(report.as_json())

    def test_text(self) -> None:
        lines = text_of(p1(ways=True)).splitlines()
        assert lines[0] == "breaks: images/p1 4"
        assert lines[1] == f"breaks on 1 of 2 kernels; compared with {TOGETHER}"
        assert any(line.startswith(f"{APART}  breaks   1 EFAULT  different output: stdout line 2: ") for line in lines)
        assert any("^ boundary at 0x200001000: anon_vma: first written apart (#3 and #4)" in line for line in lines)
        assert any("anon_vma #4: first write to 0x200001000 in main (p1) p1.c:" in line for line in lines)
        assert any("saved by yes  sharing anon_vmas at the first write" in line for line in lines)

    def test_lines_are_wrapped_at_words_only(self) -> None:
        report = p1(ways=True)
        narrow = list(render(report_lines(report), width=60, color=False))
        words = [word for line in narrow for word in line.split()]
        assert words == text_of(report).split()
        assert all(len(line) <= 60 or len(line.split()) <= 2 for line in narrow)

    def test_colour_adds_nothing_but_colour(self) -> None:
        import re

        report = p1(ways=True)
        colored = "\n".join(render(report_lines(report), width=None, color=True))
        assert "\x1b[" in colored
        plain = re.sub(r"\x1b\[[0-9;]*m", "", colored)
        assert [line.rstrip() for line in plain.splitlines()] == text_of(report).splitlines()
