"""The hardware below the kernel: physical memory, page-table formats, the walker, the TLB."""
