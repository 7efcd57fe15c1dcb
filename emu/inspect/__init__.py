"""Views of a machine at a chosen moment: areas, page tables, one page, the reverse map.

    moment.py     when to look: exit, fault:N, syscall:N, sym:NAME
    maps.py       /proc/PID/maps and smaps, with what they do not show: anon_vmas, holes, why neighbours stay apart
    pt.py         page tables as merged ranges, or entry by entry
    page.py       one page: flags, counts, owner, every PTE that maps it
    rmap.py       the objects of the reverse map and what hangs on them, as a tree and as Graphviz dot

Looking changes nothing: no page is touched, no counter moves.  Each view is plain data first (``as_json``), and its
text is made from that data.
"""
