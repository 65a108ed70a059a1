package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/serve"
)

// A chatTemplate is what stands around the turns of a conversation: user, what is said, reply, what the model answers,
// close. Special tokens in it are tokens; what is said is plain text.
type chatTemplate struct {
	user, reply, close string
	stop               string // ends the answer
}

// findTemplate finds the form of a model's chat_template, in a file of its own or in tokenizer_config.json.
func findTemplate(files fs.FS) (*chatTemplate, error) {
	form, err := findChatForm(files)
	if err != nil {
		return nil, err
	}
	return &chatTemplate{form.User.Before, form.User.After + form.Assistant.Before, form.Assistant.After, form.Stop}, nil
}

func findChatForm(files fs.FS) (serve.ChatForm, error) {
	text, err := readTemplate(files)
	if err != nil {
		return serve.ChatForm{}, modelError{err}
	}
	if text == "" {
		return serve.ChatForm{}, fmt.Errorf("this is no chat model: it has no chat_template, in chat_template.jinja or "+
			"tokenizer_config.json: continue texts with photon run: %w", photon.ErrUnsupported)
	}
	form, err := serve.ChatFormOf(text)
	if err != nil {
		err = fmt.Errorf("%w: write the turns yourself with photon run", err)
	}
	return form, err
}

func readTemplate(files fs.FS) (string, error) {
	data, err := readSmall(files, "chat_template.jinja")
	if !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			err = fmt.Errorf("chat_template.jinja: %w", err)
		}
		return string(data), err
	}
	const name = "tokenizer_config.json"
	if data, err = readSmall(files, name); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	var config struct {
		Template json.RawMessage `json:"chat_template"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return "", fmt.Errorf("%s: %w: %w", name, err, photon.ErrCorrupt)
	}
	var text string
	var several []struct{ Name, Template string }
	switch {
	case config.Template == nil || json.Unmarshal(config.Template, &text) == nil:
		return text, nil
	case json.Unmarshal(config.Template, &several) == nil:
		for _, t := range several {
			if t.Name == "default" {
				return t.Template, nil
			}
		}
		return "", nil
	}
	return "", fmt.Errorf("%s: chat_template: want a string, or a list of names and templates: %w", name, photon.ErrCorrupt)
}

var specialMark = regexp.MustCompile(`<[|/]?[a-z_]+\|?>`)

// turn is what the model reads before it answers: in a conversation that has begun, the end of its last answer too.
func (t *chatTemplate) turn(m *photon.Model, said string, first bool) (ids []int) {
	tokens, plain := m.Tokenizer(), ""
	flush := func() {
		if plain != "" {
			ids, plain = append(ids, tokens.EncodeText(plain)...), ""
		}
	}
	markup := func(text string) {
		for text != "" {
			at := specialMark.FindStringIndex(text)
			if at == nil {
				at = []int{len(text), len(text)}
			}
			plain += text[:at[0]]
			if id, ok := tokens.TokenID(text[at[0]:at[1]]); ok && at[0] < at[1] {
				flush()
				ids = append(ids, id)
			} else {
				plain += text[at[0]:at[1]]
			}
			text = text[at[1]:]
		}
	}
	if first {
		ids = append(ids, tokens.Encode("")...) // what the tokenizer begins a text with
	} else {
		markup(t.close)
	}
	markup(t.user)
	plain += said
	markup(t.reply)
	flush()
	return ids
}
