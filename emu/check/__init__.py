"""``pagewalk check mremap``: would this program break where mremap refuses, and why?

    model.py      what one run is known to have done: mremap calls, areas, boundaries, what came after a failure
    record.py     the collector inside each run, with callers.py, footprint.py, history.py and window.py
    align.py      which call of one run is the same as which of another
    verdict.py    the verdict of each run
    aftermath.py  what the program did after a call had failed, and what became of it
    finding.py    the same failure in several runs as one thing, by call site
    rescue.py     which other rules would have let the call succeed
    run.py        makes the runs
    report.py     the whole answer, and its JSON
    blocks.py     what went otherwise, a block of lines each
    text.py       the whole on a terminal
    html.py       the whole as a page
"""
