package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/photon-lm/photon"
)

const batchNotes = `
IN has a JSON object a line: {"prompt": "..."}, and where wanted "id", "n" and "seed"; with -score {"text": "..."}.
"meta" is passed over; other keys, and a key that stands twice, are errors. -score takes no flags of drawing. OUT gets
one a line, in the order of IN: "index" (the line of IN, from 0), "id", and "text", "stop" and "tokens", or with -score
"nats", "tokens", "bytes" and "bits_per_byte"; or "error". A text is that of a run of its own: it depends neither on its
company nor on the shard. Where a line has no "seed", it is -seed plus its index; "n" is 2147483647 at most, and below 0
no bound, so that the job waits until the model ends the text.
-shard i/n does the lines whose index is i modulo n. -resume goes on behind the last whole line of OUT, after a crash
too; OUT.job says what made OUT: lines, weights, kernels, flags, and nothing else goes on from it. Where machines have
different processors, the environment's PHOTON_KERNEL=avx2 (or generic) gives all the same kernels. Exit code 1 where a
line of OUT has an error, also from before.
`

// A batchJob does one shard of the lines of a file.
type batchJob struct {
	model    *photon.Model
	sampling samplingFlags
	score    bool
	texts    int // at a time
	shard    int64
	shards   int64
}

func setupBatch(f *flag.FlagSet) func(c *console, args []string) error {
	var model modelFlags
	job := batchJob{shards: 1}
	model.declare(f)
	job.sampling.declare(f)
	f.BoolVar(&job.score, "score", false, "score texts instead of continuing prompts")
	f.IntVar(&job.texts, "texts", 32, "run so many `texts` together")
	resume := f.Bool("resume", false, "go on where an interrupted run stopped")
	f.Func("shard", "do the `i/n`-th part of the lines, i from 0 to n-1 (default 0/1)", func(v string) error {
		i, n, _ := strings.Cut(v, "/")
		shard, err1 := strconv.ParseUint(i, 10, 63)
		shards, err2 := strconv.ParseUint(n, 10, 63)
		if err1 != nil || err2 != nil || shard >= shards {
			return errors.New("want i/n with 0 <= i < n, as in 0/4")
		}
		job.shard, job.shards = int64(shard), int64(shards)
		return nil
	})
	f.Usage = func() { fmt.Fprint(f.Output(), batchNotes) }
	return func(c *console, args []string) error {
		if len(args) != 2 || args[0] == "" || args[1] == "" {
			return usageError{errors.New("wants two files, IN.jsonl and OUT.jsonl")}
		}
		if args[0] == "-" || args[1] == "-" {
			return usageError{errors.New("-: wants files, for -resume reads both again")}
		}
		if job.texts < 1 || job.texts > mostTexts {
			return usageError{fmt.Errorf("-texts %d: want 1 to %d", job.texts, mostTexts)}
		}
		if given := job.sampling.given(); job.score && len(given) > 0 {
			return usageError{fmt.Errorf("-score draws nothing: leave out -%s", strings.Join(given, ", -"))}
		}
		in, err := openRegular(args[0])
		if err != nil {
			return fmt.Errorf("%w: give a file of JSON lines", err)
		}
		defer in.Close()
		ctx := interruptible()
		if job.model, err = model.loadToWrite(ctx, c); err != nil {
			return err
		}
		defer job.model.Close()
		if err := job.model.NewSession(job.sampling.options()...).Append(ctx); err != nil { // a bad option, ahead of any file
			return err
		}
		made, err := job.describe(ctx, in, &model)
		if err != nil {
			return err
		}
		lines := &shardLines{r: bufio.NewReaderSize(in, 1<<16), shard: job.shard, shards: job.shards}
		out, err := openOutput(ctx, args[1], made, *resume, lines)
		if err != nil {
			return err
		}
		err = job.run(ctx, lines, out)
		if e := out.Close(); err == nil {
			err = e
		}
		return err
	}
}

// describe says of what, by what and how OUT is made: it goes on only from what is the same.
func (j *batchJob) describe(ctx context.Context, in *os.File, model *modelFlags) (string, error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, untilDone{ctx, in}); err != nil {
		return "", err
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	// A snapshot of no text tells weights, forms and kernels: each of them decides over the bits of what is written.
	own := sha256.New()
	if _, err := j.model.NewSession().WriteTo(own); err != nil {
		return "", err
	}
	draws := &j.sampling
	return fmt.Sprintf("photon batch of lines with the SHA-256 %x: %s (%.8x on %s), weights %v, cache %v, "+
		"shard %d/%d, score %t, n %d, seed %d, stop %q, %v%s\n",
		hash.Sum(nil), model.name(), own.Sum(nil), j.model.Kernel(), model.weights, model.cache,
		j.shard, j.shards, j.score, draws.tokens, draws.seed, draws.stop, draws.mode, draws.drawn()), nil
}

// openOutput opens OUT to be written on, with `lines` behind those that it has. What stands behind its last whole line
// was cut off, and goes.
func openOutput(ctx context.Context, name, made string, resume bool, lines *shardLines) (out *os.File, err error) {
	if _, err := replaceable(name); err != nil {
		return nil, err
	}
	before, err := os.ReadFile(name + ".job")
	if resume && err == nil {
		if string(before) != made {
			return nil, usageError{fmt.Errorf(
				"%s was begun by\n  %s  and this is\n  %s  give another file, or the same flags", name, before, made)}
		}
		if out, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666); err != nil {
			return nil, err
		}
		if err := cutTail(ctx, out, lines); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", name, err), out.Close())
		}
		return out, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if _, err := os.Stat(name); err == nil && resume {
		return nil, fmt.Errorf("%s exists, and %s.job, which says what made it, does not: give another name: %w",
			name, name, fs.ErrExist)
	} else if err == nil {
		return nil, fmt.Errorf("%s exists: give -resume to go on with what this command has begun, or another name: %w",
			name, fs.ErrExist)
	}
	half := name + ".job.tmp"
	if err := os.WriteFile(half, []byte(made), 0o666); err != nil {
		return nil, ofFile(name+".job", err)
	}
	if err := os.Rename(half, name+".job"); err != nil {
		return nil, errors.Join(err, os.Remove(half))
	}
	if out, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666); err != nil {
		return nil, errors.Join(err, os.Remove(name+".job"))
	}
	return out, nil
}

// cutTail leaves of a file its whole lines, and is at their end; they answer as many of the shard's.
func cutTail(ctx context.Context, f *os.File, lines *shardLines) error {
	end := int64(0)
	for r := bufio.NewReader(untilDone{ctx, f}); ; {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		index, _, err := lines.next()
		if err != nil && err != io.EOF {
			return err
		}
		row := struct {
			Index *int64
			Error string
		}{}
		if json.Unmarshal(line, &row) != nil || row.Index == nil || *row.Index != index || err == io.EOF {
			return fmt.Errorf("the line at byte %d is not what this command writes there, the rows of IN's lines in "+
				"their order: give another file", end)
		}
		end += int64(len(line))
		lines.had++
		if row.Error != "" {
			lines.failed++
		}
	}
	if err := f.Truncate(end); err != nil {
		return err
	}
	_, err := f.Seek(end, io.SeekStart)
	return err
}

// shardLines are the lines of a shard that are not empty.
type shardLines struct {
	r             *bufio.Reader
	shard, shards int64
	index         int64 // of the line that is read next
	had, failed   int   // lines that OUT had already, and those of them that say an error
}

// next returns a line and its index among all lines; io.EOF behind the last one.
func (l *shardLines) next() (index int64, line []byte, err error) {
	for err == nil {
		line, err = l.r.ReadBytes('\n')
		index = l.index
		l.index++
		if index%l.shards == l.shard && len(bytes.TrimSpace(line)) > 0 && (err == nil || err == io.EOF) {
			return index, line, nil
		}
	}
	return 0, nil, err
}

// batchRow is what OUT says of a line.
type batchRow struct {
	Index       int64           `json:"index"`
	ID          json.RawMessage `json:"id,omitempty"`
	Text        *string         `json:"text,omitempty"`
	Stop        string          `json:"stop,omitempty"`
	Nats        *float64        `json:"nats,omitempty"`
	Tokens      *int            `json:"tokens,omitempty"`
	Bytes       *int            `json:"bytes,omitempty"`
	BitsPerByte *float64        `json:"bits_per_byte,omitempty"`
	Error       string          `json:"error,omitempty"`
}

// run does the lines. Texts end in any order, their rows are written in that of the lines.
func (j *batchJob) run(ctx context.Context, lines *shardLines, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	texts := j.model.NewBatcher(photon.MaxTexts(j.texts))
	defer texts.Close()
	turns := make(chan struct{}, 2)                     // scores take all threads each
	rows := make(chan chan batchRow, max(2, 4*j.texts)) // what has been begun, in order
	var broken error                                    // of IN
	go func() {
		defer close(rows)
		for ctx.Err() == nil {
			index, line, err := lines.next()
			if err != nil {
				if err != io.EOF {
					broken = err
				}
				return
			}
			row := make(chan batchRow, 1)
			rows <- row
			go func() { row <- j.line(ctx, texts, turns, index, line) }()
		}
	}()
	done, failed := lines.had, lines.failed
	var wrong error // the first that keeps rows from being written
	for row := range rows {
		r := <-row
		if wrong == nil {
			wrong = ctx.Err()
		}
		if wrong != nil {
			cancel()
			continue // let those that go on see that it is over
		}
		data, err := json.Marshal(r)
		if err == nil {
			_, err = out.Write(append(data, '\n'))
		}
		wrong = err
		done++
		if r.Error != "" {
			failed++
		}
	}
	switch {
	case wrong != nil:
		return wrong
	case broken != nil:
		return broken
	case ctx.Err() != nil:
		return ctx.Err()
	case failed > 0:
		return fmt.Errorf("%d of %d lines had errors: they stand in OUT as \"error\"", failed, done)
	}
	return nil
}

// line does one line.
func (j *batchJob) line(
	ctx context.Context, texts *photon.Batcher, turns chan struct{}, index int64, data []byte,
) batchRow {
	row := batchRow{Index: index}
	line, err := parseLine(data)
	row.ID = line.ID
	switch {
	case err != nil:
	case j.score && line.Text != nil:
		turns <- struct{}{}
		err = j.scoreText(ctx, *line.Text, &row)
		<-turns
	case !j.score && line.Prompt != nil:
		err = j.continuePrompt(ctx, texts, line, &row)
	default:
		err = fmt.Errorf("the line has no %q", map[bool]string{true: "text", false: "prompt"}[j.score])
	}
	if err != nil {
		row = batchRow{Index: index, ID: line.ID, Error: message(err)}
	}
	return row
}

func (j *batchJob) continuePrompt(ctx context.Context, texts *photon.Batcher, line batchLine, row *batchRow) error {
	draws := j.sampling
	draws.seed += uint64(row.Index)
	if line.Seed != nil {
		draws.seed = *line.Seed
	}
	if line.N != nil {
		draws.tokens = *line.N
	}
	if draws.tokens == 0 { // and a stream of no tokens has none that says why it ended
		row.Stop = photon.StopMaxTokens.String()
	}
	var text strings.Builder
	var stats photon.Stats
	request := photon.Request{Prompt: *line.Prompt, Options: draws.options(), Stats: &stats}
	for token, err := range texts.Generate(ctx, request) {
		if err != nil {
			return err
		}
		text.WriteString(token.Text)
		row.Stop = token.Stop.String()
	}
	whole := text.String()
	row.Text, row.Tokens = &whole, &stats.Tokens
	return nil
}

func (j *batchJob) scoreText(ctx context.Context, text string, row *batchRow) error {
	var s score
	if err := s.add(ctx, j.model, text); err != nil {
		return err
	}
	row.Nats, row.Tokens, row.Bytes = &s.Nats, &s.Tokens, &s.Bytes
	if s.Bytes > 0 {
		bits := s.bitsPerByte()
		row.BitsPerByte = &bits
	}
	return nil
}
