package serve

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"maps"
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

// decode reads a body, a JSON object, into a struct.
func decode(data []byte, v any) error {
	var wrong *strictjson.Error
	if errors.As(strictjson.Check("body", data, math.MaxInt), &wrong) {
		return badRequest(wrong.Field, "%s", wrong.Message)
	}
	return decodeFields("", data, v, idleFields)
}

// decodeFields reads the object that stands at a path of the body into a struct. A field that is null is not there.
func decodeFields(path string, data []byte, v any, idle map[string][]string) error {
	place, within := "the body", ""
	if path != "" {
		place, within = path, path+"."
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields); fields == nil {
		return badRequest(path, "%s is %.40s: give a JSON object", place, data)
	}
	known := fieldNames(reflect.TypeOf(v).Elem())
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := string(fields[name])
		switch {
		case value == "null" || slices.Contains(known, name):
		case slices.Contains(idle[name], compact(value)):
		case idle[name] != nil:
			return badRequest(within+name, "field %q is not supported but as %s: leave it out",
				within+name, strings.Join(idle[name], " or "))
		default:
			return badRequest(within+name, "field %q is not known here: %s", within+name,
				cmp.Or(instead[within+name], "leave it out"))
		}
	}
	err := json.Unmarshal(data, v)
	var wrong *json.UnmarshalTypeError
	var own *apiError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own
	case errors.As(err, &wrong):
		name := strings.TrimLeft(wrong.Field[strings.LastIndexByte(wrong.Field, '.')+1:], ".")
		if number, ok := strings.CutPrefix(wrong.Value, "number "); ok {
			return outOf(within+name, number, wanted(wrong.Type, name))
		}
		return badRequest(within+name, "field %q is of type %s: give %s",
			within+name, wrong.Value, wanted(wrong.Type, name))
	}
	return badRequest(path, "%v", err)
}

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

// fieldNames lists the JSON names of a struct, embedded structs included.
func fieldNames(t reflect.Type) (names []string) {
	for f := range t.Fields() {
		if f.Anonymous {
			names = append(names, fieldNames(f.Type)...)
		} else if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// prompts are a string, a list of token ids, or a list of either.
type prompts struct {
	texts []string
	ids   [][]int
}

func (p *prompts) UnmarshalJSON(data []byte) error {
	var one string
	var ids []int
	switch {
	case string(data) == "null":
		return nil
	case json.Unmarshal(data, &one) == nil:
		p.texts = []string{one}
	case json.Unmarshal(data, &p.texts) == nil && !holdsNull(data, p.texts):
	case bytes.Contains(data, []byte("null")):
		return badRequest("prompt", "null stands among the prompts")
	case json.Unmarshal(data, &ids) == nil:
		p.texts, p.ids = nil, [][]int{ids}
	default:
		if p.texts = nil; json.Unmarshal(data, &p.ids) != nil {
			return badRequest("prompt",
				"the prompt is to be a string, a list of strings, a list of token ids, or a list of such lists")
		}
	}
	if len(p.texts)+len(p.ids) == 0 {
		return badRequest("prompt", "the list of prompts is empty: give one")
	}
	return nil
}

// holdsNull tells whether an empty string among texts was null.
func holdsNull(data []byte, texts []string) bool {
	if !slices.Contains(texts, "") {
		return false
	}
	var list []*string
	return json.Unmarshal(data, &list) != nil || slices.Contains(list, nil)
}

// stops are a string or a list of strings.
type stops []string

const (
	mostStops     = 32
	mostStopBytes = 16 << 10 // of all: every text of the request looks for them, and may hold back as much
)

func (s *stops) UnmarshalJSON(data []byte) error {
	var one string
	var many []string
	switch {
	case string(data) == "null":
		return nil
	case json.Unmarshal(data, &one) == nil:
		many = []string{one}
	case json.Unmarshal(data, &many) != nil:
		return badRequest("stop", "stop is to be a string or a list of strings")
	}
	if len(many) > mostStops {
		return badRequest("stop", "stop has %d strings: give at most %d", len(many), mostStops)
	}
	if slices.Contains(many, "") {
		return badRequest("stop", "a stop string may not be empty, nor null: leave it out")
	}
	bytes := 0
	for _, stop := range many {
		bytes += len(stop)
	}
	if bytes > mostStopBytes {
		return badRequest("stop", "the strings of stop have %d bytes: give at most %d in all", bytes, mostStopBytes)
	}
	*s = many
	return nil
}

// tokenIDs are a list of token ids.
type tokenIDs []int

func (l *tokenIDs) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	if err := json.Unmarshal(data, (*[]int)(l)); err != nil || bytes.Contains(data, []byte("null")) {
		return badRequest("tokens", "tokens is to be a list of token ids, which are whole numbers")
	}
	return nil
}

// biases are what is added to the logits of tokens, by id.
type biases map[int]float32

func (b *biases) UnmarshalJSON(data []byte) error {
	var list map[string]json.RawMessage
	if json.Unmarshal(data, &list) != nil {
		return badRequest("logit_bias", `logit_bias is to be an object that gives token ids a number: {"97": -100}`)
	}
	*b = biases{}
	for _, key := range slices.Sorted(maps.Keys(list)) {
		var bias *float32
		id, err := strconv.Atoi(key)
		switch {
		case err != nil || strconv.Itoa(id) != key:
			return badRequest("logit_bias", "logit_bias has the key %q: give a token's id, in digits alone", key)
		case json.Unmarshal(list[key], &bias) != nil || bias == nil:
			return badRequest("logit_bias", "logit_bias of token %d is %.40s: give a number, -3.4e38 to 3.4e38",
				id, list[key])
		}
		(*b)[id] = *bias
	}
	return nil
}

// outOf says that a number is outside its range.
func outOf(name string, value any, want string) error {
	return badRequest(name, "%s is %v: give %s", name, value, want)
}
