package beam

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/io/filesystem/local"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/textio"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/ptest"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

func init() {
	register.Function1x2(keyed)
	register.Function2x1(row)
	register.Function2x1(scoredRow)
	beam.RegisterRunner("prism-local", func(ctx context.Context, p *beam.Pipeline) (beam.PipelineResult, error) { return prism.Execute(ctx, p) })
}

func TestMain(m *testing.M) { ptest.MainWithDefault(m, "prism-local") }

func keyed(line string) (string, string) { return line, line }
func row(key, text string) string        { return fmt.Sprintf("%q %q", key, text) }
func scoredRow(key string, s Scored) string {
	return fmt.Sprintf("%q %.6f %d %d", key, s.Nats, s.Tokens, s.Bytes)
}

var prompts = []string{"Once upon a time", "The sun was", "\"Who is there?\" asked", "A dog and a cat", "In the morning", "The end"}

// lines writes a file that a pipeline reads.
func lines(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "prompts.txt")
	if err := os.WriteFile(name, []byte(strings.Join(prompts, "\n")+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	return name
}

// run runs a pipeline over a file of prompts, and returns the lines that it writes.
func run(t *testing.T, rows func(s beam.Scope, keyed beam.PCollection) beam.PCollection) map[string]bool {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.txt")
	p, s := beam.NewPipelineWithRoot()
	textio.Write(s, out, rows(s, beam.ParDo(s, keyed, textio.Read(s, lines(t)))))
	if _, err := prism.Execute(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		got[strings.TrimSuffix(line, "\n")] = true
	}
	return got
}

func TestGenerate(t *testing.T) {
	options := Options{MaxTokens: 12, Seed: 5, Stop: []string{"."}}
	got := run(t, func(s beam.Scope, keyed beam.PCollection) beam.PCollection {
		return beam.ParDo(s, row, Generate(s, Model{Weights: photon.Int8}, options, keyed))
	})
	m, err := photon.LoadFS(models.Stories(), photon.WithWeights(photon.Int8))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if len(all.models) != 1 {
		t.Errorf("%d models were loaded", len(all.models))
	}
	for _, prompt := range prompts { // alone, without a pipeline
		r, err := m.Complete(context.Background(), prompt, options.of(prompt)...)
		if err != nil {
			t.Fatal(err)
		}
		if want := row(prompt, r.Text); !got[want] {
			t.Errorf("no line %s among %v", want, got)
		}
	}
	if len(got) != len(prompts) {
		t.Errorf("%d lines of %d", len(got), len(prompts))
	}
}

func TestScore(t *testing.T) {
	got := run(t, func(s beam.Scope, keyed beam.PCollection) beam.PCollection {
		return beam.ParDo(s, scoredRow, Score(s, Model{}, keyed))
	})
	m, err := photon.LoadFS(models.Stories())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, text := range prompts {
		ids := m.Tokenizer().Encode(text)
		logProbs, err := m.Score(context.Background(), ids)
		if err != nil {
			t.Fatal(err)
		}
		s := Scored{Tokens: len(ids), Bytes: len(text)}
		for _, p := range logProbs {
			s.Nats -= float64(p)
		}
		if want := scoredRow(text, s); !got[want] {
			t.Errorf("no line %s among %v", want, got)
		}
	}
}

func TestNoModel(t *testing.T) {
	p, s := beam.NewPipelineWithRoot()
	Score(s, Model{Dir: filepath.Join(t.TempDir(), "none")}, beam.ParDo(s, keyed, textio.Read(s, lines(t))))
	if _, err := prism.Execute(context.Background(), p); err == nil {
		t.Error("a pipeline without its model succeeded")
	}
	if got := (Scored{}).BitsPerByte(); !math.IsNaN(got) {
		t.Errorf("bits per byte of nothing: %g", got)
	}
}
