package serve

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/photon-lm/photon/internal/strictjson"
)

// idleFields are fields of a body of which one value asks for nothing: that is taken, any other refused.
var idleFields = map[string][]string{
	"function_call":       {`"none"`, `"auto"`},
	"functions":           {"[]"},
	"ignore_eos":          {"false"},
	"min_tokens":          {"0"},
	"modalities":          {`["text"]`},
	"repetition_penalty":  {"1", "1.0"},
	"response_format":     {`{"type":"text"}`},
	"skip_special_tokens": {"true"},
	"suffix":              {`""`},
	"tool_choice":         {`"none"`, `"auto"`},
	"tools":               {"[]"},
}

// instead says what to do with fields that belong elsewhere.
var instead = map[string]string{
	"max_completion_tokens": "give max_tokens",
	"messages":              "send it to /v1/chat/completions",
	"prompt":                "send it to /v1/completions",
}

// decode reads a body, a JSON object, into a struct: once to see that it is strict JSON, and once for what it says.
func decode(data []byte, v any) error {
	r, err := strictjson.New(data, errors.New("the body is to be strict JSON"))
	var again *strictjson.Reader
	if err == nil {
		again = r.Copy()
		if err = r.Skip(); err == nil {
			err = r.End()
		}
	}
	var wrong *strictjson.Error
	if errors.As(err, &wrong) {
		return badRequest(clip(wrong.Field), "%s", wrong.Message)
	}
	return decodeFields(func() string { return "" }, again, v, idleFields)
}

// A selfReader reads its own JSON, which is strict, and stands at a path of the body. An error that is no
// *apiError says that the value is of another type.
type selfReader interface {
	read(path func() string, r *strictjson.Reader) error
}

// decodeFields reads the object that stands at a path of the body into a struct, whose names count to the letter. A
// field that is null is not there, whether it is known or not. The path is made only where something is wrong, and
// values are read where they stand, so that a body takes little more memory than what is kept of it.
func decodeFields(path func() string, r *strictjson.Reader, v any, idle map[string][]string) error {
	if r.Peek() != '{' {
		value, _ := r.Raw()
		return badRequest(path(), "%s is %.40s: give a JSON object", cmp.Or(path(), "the body"), value)
	}
	to := reflect.ValueOf(v).Elem()
	return r.Table(func(key string) (isNew bool, err error) {
		if r.Null() {
			return true, nil
		}
		if field := fieldOf(to, key); field.IsValid() {
			return true, readField(path, key, r, field)
		}
		wants, known := idle[key]
		if !known {
			name := join(path(), key)
			return false, badRequest(name, "field %q is not known here: %s", name,
				cmp.Or(instead[name], "leave it out"))
		}
		if value, _ := r.Raw(); !slices.Contains(wants, compact(value)) {
			name := join(path(), key)
			return false, badRequest(name, "field %q is not supported but as %s: leave it out", name,
				strings.Join(wants, " or "))
		}
		return true, nil
	})
}

// readField reads the value of a key into its field.
func readField(path func() string, key string, r *strictjson.Reader, to reflect.Value) error {
	if to.Kind() == reflect.Pointer {
		to.Set(reflect.New(to.Type().Elem()))
		to = to.Elem()
	}
	first := r.Peek()
	begin := *r
	var err error
	if own, ok := to.Addr().Interface().(selfReader); ok {
		err = own.read(func() string { return join(path(), key) }, r)
	} else {
		err = readPlain(r, to)
	}
	var own *apiError
	if err == nil || errors.As(err, &own) {
		return err
	}
	name, want := join(path(), key), wanted(to.Type(), key)
	if typeOf(first) == "number" && (to.CanInt() || to.CanFloat()) {
		value, _ := begin.Raw()
		return outOf(name, clip(value), strings.Replace(want, "a number", "a number that a float64 holds", 1))
	}
	return badRequest(name, "field %q is of type %s: give %s", name, typeOf(first), want)
}

// readPlain reads a value of a type that JSON has, too.
func readPlain(r *strictjson.Reader, to reflect.Value) error {
	switch to.Kind() {
	case reflect.Bool:
		v, err := r.Bool()
		to.SetBool(v)
		return err
	case reflect.Int, reflect.Int64:
		v, err := r.Integer()
		if err == nil && to.OverflowInt(v) {
			err = r.Errorf("%d is out of range", v)
		}
		to.SetInt(v)
		return err
	case reflect.Float64:
		v, err := r.Float()
		to.SetFloat(v)
		return err
	}
	v, err := r.String()
	to.SetString(v)
	return err
}

// typeOf names the type of the value that begins so.
func typeOf(first byte) string {
	switch first {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "bool"
	}
	return "number"
}

// join is the path of a key of the object at a path.
func join(path, key string) string {
	if key = clip(key); path == "" {
		return key
	}
	return path + "." + key
}

// clip shortens what a client wrote, to be repeated in an error.
func clip(text string) string { return fmt.Sprintf("%.80s", text) }

// wanted says in words what a field takes.
func wanted(t reflect.Type, name string) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return strings.TrimSuffix("a whole number in digits, "+ranges[name], ", ")
	case reflect.Float32, reflect.Float64:
		return strings.TrimSuffix("a number, "+ranges[name], ", ")
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "a list"
	}
	return "an object"
}

// compact drops the white space of JSON whose strings have none.
func compact(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text)
}

// fieldOf is the field of a struct, embedded structs included, that has a JSON name.
func fieldOf(v reflect.Value, name string) reflect.Value {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			if field := fieldOf(v.Field(i), name); field.IsValid() {
				return field
			}
		} else if f.Tag.Get("json") == name {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

// prompts are a string, a list of token ids, or a list of either.
type prompts struct {
	most  int // how many there may be
	texts []string
	ids   [][]int
}

func (p *prompts) read(_ func() string, r *strictjson.Reader) error {
	wrong := badRequest("prompt",
		"the prompt is to be a string, a list of strings, a list of token ids, or a list of such lists")
	switch r.Peek() {
	case '"':
		text, err := r.String()
		p.texts = []string{text}
		return err
	case '[':
	default:
		return wrong
	}
	n, kind := r.Len(), ""
	if n == 0 {
		return badRequest("prompt", "the list of prompts is empty: give one")
	}
	return r.Array(func(i int) error {
		if r.Null() {
			return badRequest("prompt", "null stands among the prompts")
		}
		if i == 0 {
			if kind = typeOf(r.Peek()); kind != "number" && n > p.most {
				return badRequest("prompt", "%d prompts in one request, this server takes %d texts at a time: send "+
					"fewer", n, p.most)
			}
			if kind == "number" {
				p.ids = [][]int{make([]int, 0, n)}
			}
		}
		if typeOf(r.Peek()) != kind {
			return wrong
		}
		var err error
		switch kind {
		case "string":
			var text string
			text, err = r.String()
			p.texts = append(p.texts, text)
		case "array":
			var ids []int
			ids, err = readIDs(r)
			p.ids = append(p.ids, ids)
		case "number":
			var id int
			id, err = readID(r)
			p.ids[0] = append(p.ids[0], id)
		default:
			err = wrong
		}
		if err != nil {
			return wrong
		}
		return nil
	})
}

// readIDs reads a list of token ids.
func readIDs(r *strictjson.Reader) ([]int, error) {
	ids := make([]int, 0, r.Len())
	err := r.Array(func(int) error {
		id, err := readID(r)
		ids = append(ids, id)
		return err
	})
	return ids, err
}

// readID reads a token id. What an int does not hold is no id of any vocabulary.
func readID(r *strictjson.Reader) (int, error) {
	id, err := r.Integer()
	if err == nil && int64(int(id)) != id {
		err = r.Errorf("%d is out of range", id)
	}
	return int(id), err
}

// stops are a string or a list of strings.
type stops []string

const (
	mostStops     = 32
	mostStopBytes = 16 << 10 // of all: every text of the request looks for them, and may hold back as much
)

func (s *stops) read(_ func() string, r *strictjson.Reader) error {
	bytes := 0
	add := func(int) error {
		if r.Null() {
			return badRequest("stop", "a stop string may not be null: leave it out")
		}
		stop, err := r.String()
		switch {
		case err != nil:
			return badRequest("stop", "stop is to be a string or a list of strings")
		case stop == "":
			return badRequest("stop", "a stop string may not be empty: leave it out")
		}
		if bytes += len(stop); bytes > mostStopBytes {
			return badRequest("stop", "the strings of stop have more than %d bytes: give at most so many in all",
				mostStopBytes)
		}
		*s = append(*s, stop)
		return nil
	}
	if r.Peek() != '[' {
		return add(0)
	}
	if n := r.Len(); n > mostStops {
		return badRequest("stop", "stop has %d strings: give at most %d", n, mostStops)
	}
	return r.Array(add)
}

// tokenIDs are a list of token ids.
type tokenIDs []int

func (l *tokenIDs) read(_ func() string, r *strictjson.Reader) (err error) {
	if *l, err = readIDs(r); err != nil {
		return badRequest("tokens", "tokens is to be a list of token ids, which are whole numbers")
	}
	return nil
}

// biases are what is added to the logits of tokens, by id.
type biases struct {
	vocab int
	of    map[int]float32
}

func (b *biases) read(_ func() string, r *strictjson.Reader) error {
	if r.Peek() != '{' {
		return badRequest("logit_bias", `logit_bias is to be an object that gives token ids a number: {"97": -100}`)
	}
	b.of = make(map[int]float32, min(r.Len(), b.vocab))
	return r.Table(func(key string) (isNew bool, err error) {
		id, err := strconv.Atoi(key)
		switch {
		case err != nil || strconv.Itoa(id) != key:
			return false, badRequest("logit_bias", "logit_bias has the key %q: give a token's id, in digits alone",
				clip(key))
		case id < 0 || id >= b.vocab:
			return false, badRequest("logit_bias", "logit_bias of token %d: the vocabulary is 0 … %d", id, b.vocab-1)
		}
		begin := *r
		bias, err := r.Float()
		if small := float32(bias); err != nil || math.IsInf(float64(small), 0) || small == 0 && bias != 0 {
			value, _ := begin.Raw()
			return false, badRequest("logit_bias", "logit_bias of token %d is %.40s: give a number that a float32 "+
				"holds, -3.4e38 to 3.4e38", id, value)
		}
		b.of[id] = float32(bias)
		return true, nil
	})
}

// object is an object of which nothing is asked.
type object struct{}

func (*object) read(_ func() string, r *strictjson.Reader) error {
	return r.Table(func(string) (isNew bool, err error) { return true, r.Skip() })
}

// outOf says that a number is outside its range.
func outOf(name string, value any, want string) error {
	return badRequest(name, "%s is %v: give %s", name, value, want)
}
