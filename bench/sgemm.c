// sgemm times OpenBLAS on dst [rows×side] = x [rows×side] · Wᵀ, W [side×side], the product that photon's benchmarks time, on
// OPENBLAS_NUM_THREADS threads. One line a shape: rows x outputs x inputs, and the median rate of the rounds in GFLOP/s. One row is timed
// by sgemv too, the routine that is made for it.
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 9 };

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + 1e-9 * t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
	double d = *(const double *)a - *(const double *)b;
	return (d > 0) - (d < 0);
}

static float *values(size_t n) {
	float *v = aligned_alloc(64, (n * sizeof *v + 63) / 64 * 64);
	if (!v) abort();
	for (size_t i = 0; i < n; i++) v[i] = (float)rand() / RAND_MAX - 0.5f;
	return v;
}

static void bench(int rows, int side, int gemv) {
	float *x = values((size_t)rows * side), *w = values((size_t)side * side), *dst = values((size_t)rows * side);
	double seconds[ROUNDS];
	int calls = 1;
	for (int round = -1; round < ROUNDS; round++) { // the first warms up and finds how many calls make 10 ms
		double start = now();
		for (int i = 0; i < calls; i++)
			if (gemv) cblas_sgemv(CblasRowMajor, CblasNoTrans, side, side, 1, w, side, x, 1, 0, dst, 1);
			else cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, side, side, 1, x, side, w, side, 0, dst, side);
		double each = (now() - start) / calls;
		if (round >= 0) seconds[round] = each;
		else calls = each < 0.01 ? 0.01 / each + 1 : 1;
	}
	qsort(seconds, ROUNDS, sizeof *seconds, ascending);
	printf("%dx%dx%d%s %.2f\n", rows, side, side, gemv ? "/sgemv" : "", 2.0 * rows * side * side / seconds[ROUNDS / 2] / 1e9);
	fflush(stdout);
	free(x), free(w), free(dst);
}

int main(int argc, char **argv) {
	if (argc > 1) return 0; // with any argument, only to have OpenBLAS say which kernels it takes
	int thin[] = {1024, 2048, 4096}, square[] = {512, 1024, 2048};
	for (int s = 0; s < 3; s++) {
		bench(1, thin[s], 1);
		for (int rows = 1; rows <= 64; rows *= 2) bench(rows, thin[s], 0);
	}
	for (int s = 0; s < 3; s++) bench(square[s], square[s], 0);
}
