/* Known chains of callers: each function asks the kernel for something where its caller is to be found. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile int depth;

__attribute__((noipa)) static void *innermost(void *old, size_t len)
{
	char buffer[200];
	memset(buffer, depth, sizeof buffer);
	void *grown = mremap(old, len, 2 * len, MREMAP_MAYMOVE); /* line: innermost */
	depth += buffer[3];
	return grown;
}

__attribute__((noipa)) static void *with_alloca(void *old, size_t len)
{
	char *room = __builtin_alloca(len / 64);
	room[len / 128] = 1;
	void *grown = innermost(old, len); /* line: with_alloca */
	depth += room[len / 128];
	return grown;
}

__attribute__((noipa)) static int recursive(void *old, size_t len, int left)
{
	if (left)
		return recursive(old, len, left - 1) + depth; /* line: recursive */
	return with_alloca(old, len) != MAP_FAILED;
}

__attribute__((noipa)) static void handler(int signo)
{
	(void)signo;
	write(1, "signal\n", 7); /* line: handler */
}

__attribute__((noipa)) static int interrupted(void)
{
	depth++;
	__asm__ volatile("ud2");
	return depth; /* line: interrupted, where the handler has moved it on to */
}

__attribute__((noipa)) static void on_ill(int signo, siginfo_t *info, void *context)
{
	(void)info;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
	handler(signo); /* line: on_ill */
	depth++;
}

__attribute__((noipa)) static int compare(const void *one, const void *two)
{
	write(1, "compare\n", 8); /* line: compare */
	return *(const int *)one - *(const int *)two;
}

int main(void)
{
	struct sigaction action = {.sa_sigaction = on_ill, .sa_flags = SA_SIGINFO};
	int two[2] = {2, 1};
	void *area = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int sum = recursive(area, 1 << 20, 3);
	sigaction(SIGILL, &action, 0);
	sum += interrupted();
	qsort(two, 2, sizeof *two, compare);
	return sum == 0;
}
