"""Reports to look at: one HTML file that opens offline.

    story.py      the records of a trace as what a report tells: areas, faults, counters, calls, by address space
    axis.py       an address space without its holes: where an address lies on the page
    figures.py    the pictures, as plotly figures
    tables.py     the tables, plain HTML that needs no script
    html.py       the page: style, script and plotly's own library put into one file

The same records give the same bytes: nothing of the host or the clock is in a report.
"""
