package photon

import (
	"fmt"
	"io/fs"
)

// Info describes a model directory by what its headers say.
type Info struct {
	Config      Config
	Tensors     int              // in the files; int8 scales count as tensors of their own
	WeightBytes int64            // of all tensors
	DTypes      map[string]int64 // bytes by number format: "F32", "F16", "BF16", "I8"
}

// Inspect reads config.json and the headers of the weights, and checks the files' structure and that they hold exactly the tensors that the configuration
// asks for. It touches no weights, and is quick for a model of any size. The errors are those of LoadFS. It may be called from several goroutines.
func Inspect(fsys fs.FS) (Info, error) {
	info, _, err := inspect(fsys)
	return info, err
}

func inspect(fsys fs.FS) (Info, *checkpoint, error) {
	data, err := readSmall(fsys, configFile, maxConfigSize)
	if err != nil {
		return Info{}, nil, err
	}
	cfg, err := parseConfig(data)
	if err != nil {
		return Info{}, nil, err
	}
	c, err := openCheckpoint(fsys)
	if err != nil {
		return Info{}, nil, err
	}
	if err := c.match(cfg.tensors()); err != nil {
		return Info{}, nil, err
	}
	info := Info{Config: cfg, WeightBytes: c.bytes(), DTypes: map[string]int64{}}
	for _, t := range c.tensors {
		if !t.ignored {
			info.Tensors++
			info.DTypes[t.dtype.String()] += t.end - t.begin
		}
	}
	return info, c, nil
}

// CheckWeights is Inspect, and then reads every weight: a NaN or an infinity among them is an error that names the tensor, counts them and matches ErrCorrupt.
// progress, unless nil, is told the bytes read so far and in all. Memory in use is that of the largest tensor.
func CheckWeights(fsys fs.FS, progress func(done, total int64)) (Info, error) {
	info, c, err := inspect(fsys)
	if err != nil {
		return Info{}, err
	}
	var row []float32
	done := int64(0)
	err = c.each(func(t tensorData) error {
		n := 1
		for _, size := range t.shape {
			n *= size
		}
		bad, first := 0, -1
		for at := 0; at < n; at += len(row) {
			row = grow(row, min(1<<14, n-at))
			t.float32s(row, at, len(row))
			for i, x := range row {
				if x-x != 0 { // NaN or infinite
					if bad++; first < 0 {
						first = at + i
					}
				}
			}
		}
		if bad > 0 {
			value := []float32{0}
			t.float32s(value, first, 1)
			return fmt.Errorf("photon: tensor %q: %d of %d weights are not finite, the first is number %d, %v: the training run diverged or the file is damaged: %w",
				t.name, bad, n, first, value[0], ErrCorrupt)
		}
		done += int64(len(t.data))
		if d, ok := c.dtypeOf(t.name + scalesSuffix); ok {
			done += int64(len(t.scales) * d.size())
		}
		if progress != nil {
			progress(done, info.WeightBytes)
		}
		return nil
	})
	return info, err
}
