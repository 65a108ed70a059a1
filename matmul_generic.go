package photon

// mulPanelF32 computes dst[r·stride+j] = Σ_k x[r·in+k] · w[k·32+j] for rows r and lanes j, k ascending.
// w is one panel [in][32].
func mulPanelF32(dst []float32, stride int, x []float32, in, rows int, w []float32, lanes int) {
	for r := range rows {
		row := x[r*in:][:in]
		var acc [panelWidth]float32
		for j := 0; j < lanes; j += 8 {
			var a0, a1, a2, a3, a4, a5, a6, a7 float32
			for k, v := range row {
				q := w[k*panelWidth+j:][:8:8]
				a0 += v * q[0]
				a1 += v * q[1]
				a2 += v * q[2]
				a3 += v * q[3]
				a4 += v * q[4]
				a5 += v * q[5]
				a6 += v * q[6]
				a7 += v * q[7]
			}
			acc[j], acc[j+1], acc[j+2], acc[j+3] = a0, a1, a2, a3
			acc[j+4], acc[j+5], acc[j+6], acc[j+7] = a4, a5, a6, a7
		}
		copy(dst[r*stride:][:lanes], acc[:])
	}
}

// mulPanelBF16 is mulPanelF32 for a panel of bfloat16 pairs [ceil(in/2)][32][2]; the products are exact, the sums float32.
func mulPanelBF16(dst []float32, stride int, x []float32, in, rows int, w []uint16, lanes int) {
	for r := range rows {
		row := x[r*in:][:in]
		var acc [panelWidth]float32
		for j := 0; j < lanes; j += 4 {
			var a0, a1, a2, a3 float32
			for k := 0; k < in; k += 2 {
				q := w[(k/2*panelWidth+j)*2:][:8:8]
				v := row[k]
				a0 += v * bf16ToF32(q[0])
				a1 += v * bf16ToF32(q[2])
				a2 += v * bf16ToF32(q[4])
				a3 += v * bf16ToF32(q[6])
				if k+1 < in {
					v = row[k+1]
					a0 += v * bf16ToF32(q[1])
					a1 += v * bf16ToF32(q[3])
					a2 += v * bf16ToF32(q[5])
					a3 += v * bf16ToF32(q[7])
				}
			}
			acc[j], acc[j+1], acc[j+2], acc[j+3] = a0, a1, a2, a3
		}
		copy(dst[r*stride:][:lanes], acc[:])
	}
}
