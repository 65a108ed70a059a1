#!/bin/bash
# OpenBLAS and photon side by side: f32 products, on one thread and two, in alternating rounds of one run. Prints the peaks of the
# processor's instructions, then a table of the medians, in GFLOP/s, and of their ratio. Takes two minutes of a quiet machine.
#
#	bench/openblas.sh [ROUNDS]     default 3; needs a C compiler and OpenBLAS (apt-get install gcc libopenblas-dev)
#
# OpenBLAS gets the weights as they are and packs them in every call, photon has packed them at load: that is how each is used.
set -euo pipefail
cd "$(dirname "$0")"
rounds=${1:-3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc -O2 -o "$work/sgemm" sgemm.c -lopenblas
cc -O2 -o "$work/peak" peak.c -lpthread
(cd .. && go test -c -o "$work/photon.test" .)

# An OpenBLAS that is older than the processor takes its plainest kernels, a fifth as fast: give it better ones.
if OPENBLAS_VERBOSE=2 "$work/sgemm" none 2>&1 | grep -q 'Core: Prescott'; then
	if grep -qw avx512bw /proc/cpuinfo; then
		export OPENBLAS_CORETYPE=SkylakeX
	elif grep -qw avx2 /proc/cpuinfo; then
		export OPENBLAS_CORETYPE=Haswell
	fi
fi
core=$(OPENBLAS_VERBOSE=2 "$work/sgemm" none 2>&1 | sed -n 's/^Core: //p')

photon() { # THREADS KIND SHAPES TIER BENCHTIME
	(cd .. && GOMAXPROCS=$1 "$work/photon.test" -test.run '^$' -test.cpu "$1" -test.bench "^Benchmark$2\$/^f32\$/$3/$4" -test.benchtime "$5")
}
tier=$(photon 1 Matvec '^256x1024$' . 1x | awk -F'[/ \t]' '/^Benchmark/ { print $4; exit }')

for threads in 1 2; do
	for ((round = 0; round < rounds; round++)); do
		OPENBLAS_NUM_THREADS=$threads "$work/sgemm" | sed "s/^/openblas $threads /"
		photon $threads Matvec '^(1024x1024|2048x2048|4096x4096)$' "^$tier\$" 100ms
		photon $threads Matmul . "^$tier\$" 100ms
	done
done | awk '
	# BenchmarkMatvec/f32/INxOUT/TIER-2 … GFLOP/s: photon, without -2 on one thread
	/^BenchmarkMat/ {
		split($1, name, "/")
		threads = name[4] ~ /-2$/ ? 2 : 1
		shape = name[1] == "BenchmarkMatvec" ? "1x" name[3] : name[3]
		for (i = 2; i <= NF; i++) if ($i == "GFLOP/s") print "photon", threads, shape, $(i - 1)
	}
	/^openblas/' >"$work/rates"

for threads in 1 2; do
	echo "Peaks on $threads thread(s), GFLOP/s: $("$work/peak" $threads | paste -sd, | sed 's/,/, /g')"
done
echo
echo "OpenBLAS: ${core:-?}; photon: $tier, medians of $rounds rounds"
echo
awk '
	function median(list, n, i, j, t, v) {
		n = split(list, v, " ")
		for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j] + 0 < v[j - 1] + 0; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
		return (v[int((n + 1) / 2)] + v[int(n / 2) + 1]) / 2
	}
	!(($2, $3) in seen) && $1 == "openblas" { seen[$2, $3]; order[++count] = $2 " " $3 }
	{ rates[$1, $2, $3] = rates[$1, $2, $3] " " $4 }
	END {
		print "| rows x outputs x inputs | threads | OpenBLAS | photon | ratio |"
		print "| --- | --- | --- | --- | --- |"
		for (i = 1; i <= count; i++) {
			split(order[i], key, " ")
			shape = key[2]
			sub("/sgemv", "", shape)
			a = median(rates["openblas", key[1], key[2]])
			b = median(rates["photon", key[1], shape])
			printf "| %s | %s | %.1f | %.1f | %s |\n", key[2], key[1], a, b, b ? sprintf("%.2f", b / a) : "not measured"
		}
	}' "$work/rates"
