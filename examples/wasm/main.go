//go:build js && wasm

// Command wasm gives a page's JavaScript the library, as an object named photon:
//
//	photon.load({"config.json": Uint8Array, …})      a promise of what the model is
//	photon.generate(options, token => …)             a promise of why the text ended
//	photon.stop()                                    ends generate, which keeps what it has written
//	photon.stateBytes(tokens)                        keys and values after so many tokens: this model, flat ones
//
// It runs in a Web Worker (page/worker.js) or under node (protocol_test.go).
package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"syscall/js"
	"time"

	"github.com/photon-lm/photon"
)

// The state of the worker: one model, one text. JavaScript calls one function at a time, so no lock guards it.
var (
	model   *photon.Model
	session *photon.Session // nil: no text yet
	stop    context.CancelFunc
)

// What the model's state is compared with.
var flat, rival = preset("flat-15m"), preset("rival-15m")

func main() {
	js.Global().Set("photon", js.ValueOf(map[string]any{
		"load":       js.FuncOf(load),
		"generate":   js.FuncOf(generate),
		"stop":       js.FuncOf(halt),
		"stateBytes": js.FuncOf(stateBytes),
	}))
	select {} // the functions live as long as the worker
}

var errWriting = errors.New("a text is being written: call stop first, and wait for its promise")

// load(files) makes the model of the bytes of its files.
func load(_ js.Value, args []js.Value) any {
	return promise(func() (any, error) {
		if len(args) != 1 || args[0].Type() != js.TypeObject {
			return nil, errors.New(`load wants one object, {"config.json": Uint8Array, "model.safetensors": …, "tokenizer.json": …}`)
		}
		if stop != nil {
			return nil, errWriting
		}
		begin := time.Now()
		// The embedded model loses nothing as int8, which takes a quarter of the memory.
		m, err := photon.LoadFS(arrays(args[0]), photon.WithWeights(photon.Int8))
		if err != nil {
			return nil, err
		}
		if stop != nil { // begun meanwhile
			return nil, errWriting
		}
		model, session = m, nil
		debug.FreeOSMemory() // what loading needed is most of the garbage there will ever be
		return map[string]any{
			"parameters":     m.Config().Parameters(),
			"flatParameters": flat.Parameters(),
			"milliseconds":   milliseconds(begin),
		}, nil
	})
}

// generate(options, token) writes options.maxTokens tokens after options.prompt, or after the text so far where
// options.more is true, and calls token({text, tokens}) for each: what it adds to the text, and how long that is now.
func generate(_ js.Value, args []js.Value) any {
	return promise(func() (any, error) {
		switch {
		case model == nil:
			return nil, errors.New("no model is loaded: call load first")
		case stop != nil:
			return nil, errWriting
		case len(args) != 2 || args[0].Type() != js.TypeObject || args[1].Type() != js.TypeFunction:
			return nil, errors.New("generate wants options and a function for the tokens")
		}
		options, token := args[0], args[1]
		sampling, err := read(options)
		if err != nil {
			return nil, err
		}
		more, prompt := session != nil && options.Get("more").Truthy(), options.Get("prompt")
		if !more && prompt.Type() != js.TypeString {
			return nil, fmt.Errorf("prompt is a %v: give a string", prompt.Type())
		}
		ctx, cancel := context.WithCancel(context.Background())
		stop = cancel
		defer func() { cancel(); stop = nil }()

		begin := time.Now()
		if !more {
			session = model.NewSession()
			if err := session.AppendText(ctx, prompt.String()); err != nil {
				return ended("stopped", begin, time.Since(begin), 0), unlessStopped(err)
			}
		}
		var first time.Duration // until the first token, prompt included
		written := 0
		for t, err := range session.Generate(ctx, sampling...) {
			if first == 0 {
				first = time.Since(begin)
			}
			if err != nil {
				return ended("stopped", begin, first, written), unlessStopped(err)
			}
			written++
			if err := call(token, map[string]any{"text": t.Text, "tokens": session.Len()}); err != nil {
				return nil, err
			}
			if t.Stop != photon.Going {
				return ended(t.Stop.String(), begin, first, written), nil
			}
		}
		return ended(photon.StopMaxTokens.String(), begin, first, written), nil // of none
	})
}

// call calls a function of the page's, whose exception is an error.
func call(f js.Value, arg any) (err error) {
	defer func() {
		switch thrown := recover().(type) {
		case nil:
		case js.Error:
			err = thrown
		default:
			panic(thrown)
		}
	}()
	f.Invoke(arg)
	return nil
}

// read makes the library's options of options.{temperature, topP, seed, maxTokens}; what is undefined has its default.
func read(options js.Value) (list []photon.Option, err error) {
	number := func(name string, use func(float64) photon.Option) {
		switch v := options.Get(name); v.Type() {
		case js.TypeUndefined:
		case js.TypeNumber:
			list = append(list, use(v.Float()))
		default:
			err = fmt.Errorf("%s is a %v: give a number", name, v.Type())
		}
	}
	number("temperature", photon.Temperature)
	number("topP", photon.TopP)
	whole := func(name string, use func(int) photon.Option) {
		number(name, func(f float64) photon.Option {
			if f < 0 || f > 1<<31-1 || f != math.Trunc(f) {
				err = fmt.Errorf("%s is %v: give a whole number from 0 to 2147483647", name, f)
				f = 0
			}
			return use(int(f))
		})
	}
	whole("seed", func(n int) photon.Option { return photon.Seed(uint64(n)) })
	whole("maxTokens", photon.MaxTokens)
	return list, err
}

func ended(why string, begin time.Time, first time.Duration, written int) map[string]any {
	total := time.Since(begin)
	rate := 0.0 // of the tokens behind the first
	if written > 1 && total > first {
		rate = float64(written-1) / (total - first).Seconds()
	}
	return map[string]any{"why": why, "tokens": session.Len(), "written": written, "firstToken": 1000 * first.Seconds(), "rate": rate}
}

// unlessStopped is err, unless it says that stop was called.
func unlessStopped(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// halt is stop(): generate ends within a few milliseconds.
func halt(js.Value, []js.Value) any {
	if stop != nil {
		stop()
	}
	return nil
}

// stateBytes(tokens) is [this model, a flat one of its size, the same with windows and one layer that sees everything].
func stateBytes(_ js.Value, args []js.Value) any {
	if model == nil || len(args) != 1 || args[0].Type() != js.TypeNumber {
		return js.Null()
	}
	var sizes []any
	for _, c := range []photon.Config{model.Config(), flat, rival} {
		sizes = append(sizes, c.StateBytes(args[0].Int(), photon.CacheF32))
	}
	return sizes
}

// preset is an architecture that the library knows.
func preset(name string) photon.Config {
	c, err := photon.Preset(name)
	if err != nil {
		panic(err) // names are constants: it cannot fail
	}
	return c
}

func milliseconds(since time.Time) float64 { return 1000 * time.Since(since).Seconds() }

// promise runs f on a goroutine of its own, for a function that JavaScript calls must not wait, and gives JavaScript a
// promise of its result.
func promise(f func() (any, error)) js.Value {
	var settle js.Func
	settle = js.FuncOf(func(_ js.Value, to []js.Value) any {
		go func() {
			defer settle.Release()
			result, err := f()
			if err != nil {
				to[1].Invoke(js.Global().Get("Error").New(err.Error()))
				return
			}
			to[0].Invoke(result)
		}()
		return nil
	})
	return js.Global().Get("Promise").New(settle)
}
