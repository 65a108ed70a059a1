package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// passive are fields that change no text: they are taken, and do nothing.
var passive = []string{
	"metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier",
	"store", "user",
}

// plain are fields of which one value asks for nothing: that is taken, any other refused.
var plain = map[string][]string{
	"best_of":         {"1"},
	"functions":       {"[]"},
	"modalities":      {`["text"]`},
	"response_format": {`{"type":"text"}`},
	"suffix":          {`""`},
	"tool_choice":     {`"none"`, `"auto"`},
	"tools":           {"[]"},
}

// decode reads a JSON object into a struct. A field that is null is not there.
func decode(data []byte, v any) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil || fields == nil {
		return notJSON(err)
	}
	known := fieldNames(reflect.TypeOf(v).Elem())
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := string(fields[name])
		switch {
		case value == "null" || slices.Contains(known, name) || slices.Contains(passive, name):
		case slices.Contains(plain[name], compact(value)):
		case plain[name] != nil:
			return badRequest(name, "field %q is not supported but as %s: leave it out",
				name, strings.Join(plain[name], " or "))
		default:
			return badRequest(name, "field %q is not known here: leave it out", name)
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
		return badRequest(name, "field %q is of type %s: give %s", name, wrong.Value, wanted(wrong.Type))
	}
	return badRequest("", "%v", err)
}

func notJSON(err error) error {
	why := "it is null"
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		why = "it is of type " + wrong.Value
	} else if err != nil {
		why = err.Error()
	}
	return badRequest("", "the body is not a JSON object: %s", why)
}

// wanted says in words what a field takes.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Float32, reflect.Float64:
		return "a number"
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

const mostStops = 32

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
	if len(many) > mostStops || slices.Contains(many, "") {
		return badRequest("stop", "stop has %d strings: give at most %d, none of them empty", len(many), mostStops)
	}
	*s = many
	return nil
}

// content is a message's text, as a string or in parts.
type content string

func (c *content) UnmarshalJSON(data []byte) error {
	var text string
	var parts []struct {
		Type string  `json:"type"`
		Text *string `json:"text"`
	}
	switch {
	case json.Unmarshal(data, &text) == nil:
	case json.Unmarshal(data, &parts) == nil:
		for i, p := range parts {
			if p.Type != "text" || p.Text == nil {
				return badRequest("messages", "part %d of a message is of type %q: only text is read", i, p.Type)
			}
			text += *p.Text
		}
	default:
		return badRequest("messages", "the content of a message is to be a string or a list of text parts")
	}
	*c = content(text)
	return nil
}

// outOf says that a number is outside its range.
func outOf(name string, value any, want string) error {
	return badRequest(name, "%s is %v: give %s", name, value, want)
}
