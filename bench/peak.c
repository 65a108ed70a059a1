// peak times the instructions that matrix kernels live on, from registers only: what no kernel can exceed. Its argument is the number of
// threads. One line an instruction that the processor has: its name, and the sum of the threads' best rates in GFLOP/s; a multiplication
// and an addition count as two, those of integers too.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { STEPS = 20000, SUMS = 12, ROUNDS = 500, MAX_THREADS = 64 };

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + 1e-9 * t.tv_nsec;
}

// A loop of STEPS steps: in each, every one of SUMS sums takes one instruction, and none waits for another.
typedef struct {
	const char *name;
	void (*loop)(void);
	int flop; // of one instruction
	int present;
} instruction;

#if defined __x86_64__

#define OP(op, r, a, b, sum) op " %%" r #a ", %%" r #b ", %%" r #sum "\n\t"
#define LOOP(name, op, r)                                                                                                     \
	static void name(void) {                                                                                              \
		long n = STEPS;                                                                                               \
		__asm__ volatile("vzeroall\n1:\n\t"                                                                           \
			OP(op, r, 0, 0, 4) OP(op, r, 1, 1, 5) OP(op, r, 2, 2, 6) OP(op, r, 3, 3, 7)                           \
			OP(op, r, 0, 1, 8) OP(op, r, 1, 2, 9) OP(op, r, 2, 3, 10) OP(op, r, 3, 0, 11)                         \
			OP(op, r, 0, 2, 12) OP(op, r, 1, 3, 13) OP(op, r, 2, 0, 14) OP(op, r, 3, 1, 15)                       \
			"dec %0\n\tjnz 1b\n\tvzeroupper" : "+r"(n) : : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",  \
			"xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                \
	}
LOOP(fma256, "vfmadd231ps", "ymm")
LOOP(fma512, "vfmadd231ps", "zmm")
LOOP(bf16, "vdpbf16ps", "zmm")
LOOP(vnni, "vpdpbusd", "zmm")
LOOP(bytes256, "vpmaddubsw", "ymm")

static int instructions(instruction *list) {
	instruction all[] = {
		{"VFMADD231PS-256", fma256, 16, __builtin_cpu_supports("fma")},
		{"VFMADD231PS-512", fma512, 32, __builtin_cpu_supports("avx512f")},
		{"VDPBF16PS-512", bf16, 64, __builtin_cpu_supports("avx512bf16")},
		{"VPDPBUSD-512", vnni, 128, __builtin_cpu_supports("avx512vnni")},
		{"VPMADDUBSW-256", bytes256, 64, __builtin_cpu_supports("avx2")},
	};
	int n = 0;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (all[i].present) list[n++] = all[i];
	return n;
}

#elif defined __aarch64__

static void fmla(void) {
	long n = STEPS;
	__asm__ volatile("1:\n\t"
		"fmla v4.4s, v0.4s, v1.4s\n\tfmla v5.4s, v0.4s, v1.4s\n\tfmla v6.4s, v0.4s, v1.4s\n\tfmla v7.4s, v0.4s, v1.4s\n\t"
		"fmla v16.4s, v0.4s, v1.4s\n\tfmla v17.4s, v0.4s, v1.4s\n\tfmla v18.4s, v0.4s, v1.4s\n\tfmla v19.4s, v0.4s, v1.4s\n\t"
		"fmla v20.4s, v0.4s, v1.4s\n\tfmla v21.4s, v0.4s, v1.4s\n\tfmla v22.4s, v0.4s, v1.4s\n\tfmla v23.4s, v0.4s, v1.4s\n\t"
		"subs %0, %0, #1\n\tb.ne 1b" : "+r"(n) : : "cc", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23");
}

static int instructions(instruction *list) {
	list[0] = (instruction){"FMLA-4S", fmla, 8, 1};
	return 1;
}

#else
#error "peak knows the instructions of amd64 and arm64"
#endif

static instruction current;

static void *measure(void *best) {
	for (int round = 0; round < ROUNDS; round++) {
		double start = now();
		current.loop();
		double rate = (double)STEPS * SUMS * current.flop / (now() - start) / 1e9;
		if (rate > *(double *)best) *(double *)best = rate;
	}
	return NULL;
}

int main(int argc, char **argv) {
	int threads = argc > 1 ? atoi(argv[1]) : 1;
	if (threads < 1 || threads > MAX_THREADS) {
		fprintf(stderr, "usage: peak THREADS, at most %d\n", MAX_THREADS);
		return 2;
	}
	instruction list[8];
	int n = instructions(list);
	for (int i = 0; i < n; i++) {
		pthread_t thread[MAX_THREADS];
		double best[MAX_THREADS] = {0}, sum = 0;
		current = list[i];
		for (int t = 0; t < threads; t++)
			if (pthread_create(&thread[t], NULL, measure, &best[t])) abort();
		for (int t = 0; t < threads; t++) pthread_join(thread[t], NULL), sum += best[t];
		printf("%s %.1f\n", list[i].name, sum);
	}
}
