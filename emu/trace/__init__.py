"""Traces: tracepoints of the kernel become records (dictionaries), and records become text or JSON lines.

    tracepoint values -> records.py | spaces.py -> one record -> text.py | jsonl.py | perfetto.py

Every rendering is made from the same record, so that the formats cannot drift apart.  Nothing here changes the machine:
memory is read without faults (peek.py), so a traced run is the same run.
"""
