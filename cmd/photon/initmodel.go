package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/photon-lm/photon"
)

func setupInit(f *flag.FlagSet) func(c *console, args []string) error {
	var preset, config string
	f.Func("preset", "architecture, by `name`: "+strings.Join(photon.PresetNames(), ", "), filled(&preset))
	f.Func("config", "architecture, by a config.json `file`, instead of a preset", filled(&config))
	seed := f.Uint64("seed", 0, "seed of the weights")
	dtype := f.String("dtype", "BF16", "number `format` of the weights: BF16 or F32")
	return func(c *console, args []string) error {
		if len(args) != 1 || args[0] == "" || (preset == "") == (config == "") {
			return usageError{fmt.Errorf("wants a preset or a config.json, and one directory, " +
				"as in photon init -preset flat-20m DIR")}
		}
		cfg, err := photon.Preset(preset)
		if config != "" {
			cfg, err = readConfig(config)
		}
		if err != nil {
			return usageError{err}
		}
		return writeRandom(interruptible(), c, args[0], cfg, *seed, *dtype)
	}
}

func readConfig(name string) (cfg photon.Config, err error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return cfg, err
	}
	if !json.Valid(data) {
		return cfg, fmt.Errorf("%s is not JSON: give a model's config.json", name)
	}
	if err = json.Unmarshal(data, &cfg); err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return cfg, err
}

// writeRandom writes a model, and leaves nothing of it where ctx ends first.
func writeRandom(ctx context.Context, c *console, dir string, cfg photon.Config, seed uint64, dtype string) error {
	p := c.progress()
	defer p.done()
	defer p.during("writing random weights")()
	return photon.WriteRandomContext(ctx, dir, cfg, seed, dtype)
}
