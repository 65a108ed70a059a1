package serve

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/internal/strictjson"
)

// A ChatForm is how a conversation is laid out as a text that a model continues. Special tokens spelled in it are those
// tokens; what messages say is plain text. The zero form is none.
type ChatForm struct {
	System, User, Assistant Turn
	Stop                    string // ends an answer, and is no part of it
}

// Turn is what stands around a message.
type Turn struct{ Before, After string }

// forms are those that are known by name, or by marks that all stand in a model's chat_template; the first that fits is
// taken.
var forms = []struct {
	name  string
	marks []string
	ChatForm
}{
	{"chatml", []string{"<|im_start|>"}, ChatForm{
		Turn{"<|im_start|>system\n", "<|im_end|>\n"},
		Turn{"<|im_start|>user\n", "<|im_end|>\n"},
		Turn{"<|im_start|>assistant\n", "<|im_end|>\n"}, "<|im_end|>"}},
	{"llama3", []string{"<|start_header_id|>", "<|eot_id|>"}, ChatForm{
		Turn{"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
		Turn{"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
		Turn{"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"}, "<|eot_id|>"}},
	{"gemma", []string{"<start_of_turn>"}, ChatForm{ // which has no role for the system
		Turn{"<start_of_turn>user\n", "<end_of_turn>\n"},
		Turn{"<start_of_turn>user\n", "<end_of_turn>\n"},
		Turn{"<start_of_turn>model\n", "<end_of_turn>\n"}, "<end_of_turn>"}},
	{"phi3", []string{"<|user|>", "<|end|>"}, ChatForm{
		Turn{"<|system|>\n", "<|end|>\n"},
		Turn{"<|user|>\n", "<|end|>\n"},
		Turn{"<|assistant|>\n", "<|end|>\n"}, "<|end|>"}},
	{"zephyr", []string{"<|user|>", "eos_token"}, ChatForm{
		Turn{"<|system|>\n", "</s>\n"},
		Turn{"<|user|>\n", "</s>\n"},
		Turn{"<|assistant|>\n", "</s>\n"}, "</s>"}},
	{"plain", []string{"User:", "Assistant:"}, ChatForm{
		Turn{"", "\n\n"},
		Turn{"User: ", "\n"},
		Turn{"Assistant:", "\n"}, "\nUser:"}},
}

// NamedChatForm returns the form chatml, llama3, gemma, phi3, zephyr or plain.
func NamedChatForm(name string) (ChatForm, error) {
	var names []string
	for _, f := range forms {
		if f.name == name {
			return f.ChatForm, nil
		}
		names = append(names, f.name)
	}
	return ChatForm{}, fmt.Errorf("serve: no chat form %q: give one of %s: %w", name, strings.Join(names, ", "),
		photon.ErrInvalid)
}

// ChatFormOf recognises the form of a chat_template, the Jinja text in a model's chat_template.jinja or
// tokenizer_config.json. One of no known form is an error that matches ErrUnsupported.
func ChatFormOf(template string) (ChatForm, error) {
next:
	for _, f := range forms {
		for _, mark := range f.marks {
			if !strings.Contains(template, mark) {
				continue next
			}
		}
		return f.ChatForm, nil
	}
	return ChatForm{},
		fmt.Errorf("serve: the chat_template is of none of the forms known here (ChatML, Llama 3, Gemma, Phi 3, "+
			"Zephyr, User:/Assistant:): %w", photon.ErrUnsupported)
}

var specialMark = regexp.MustCompile(`<[|/]?[a-z_0-9]+\|?>`)

// Check reports why a model with this tokenizer cannot be served in the form: ErrUnsupported where it lacks tokens.
func (f ChatForm) Check(t *photon.Tokenizer) error {
	if f != (ChatForm{}) && t == nil {
		return fmt.Errorf("serve: a chat form: the model has no tokenizer.json: %w", photon.ErrUnsupported)
	}
	for _, turn := range []Turn{f.User, f.Assistant} {
		for _, mark := range specialMark.FindAllString(turn.Before+turn.After, -1) {
			if _, ok := t.TokenID(mark); !ok {
				return fmt.Errorf("serve: the chat form has %s, the model's tokenizer has not: choose the form that the model "+
					"was trained with: %w", mark, photon.ErrUnsupported)
			}
		}
	}
	return nil
}

type message struct{ role, content string }

// encode lays out a conversation up to where the answer begins. What messages say cannot spell special tokens.
func (f ChatForm) encode(t *photon.Tokenizer, messages []message) (ids []int) {
	var plain strings.Builder
	flush := func() {
		ids = append(ids, t.EncodeText(plain.String())...)
		plain.Reset()
	}
	markup := func(text string) {
		for text != "" {
			at := specialMark.FindStringIndex(text)
			if at == nil {
				plain.WriteString(text)
				return
			}
			plain.WriteString(text[:at[0]])
			if id, ok := t.TokenID(text[at[0]:at[1]]); ok {
				flush()
				ids = append(ids, id)
			} else {
				plain.WriteString(text[at[0]:at[1]])
			}
			text = text[at[1]:]
		}
	}
	for _, m := range messages {
		turn := f.User
		switch m.role {
		case "system":
			turn = f.System
		case "assistant":
			turn = f.Assistant
		}
		markup(turn.Before)
		if m.role == "assistant" && f.afterColon() {
			plain.WriteByte(' ')
		}
		plain.WriteString(m.content)
		markup(turn.After)
	}
	markup(f.Assistant.Before)
	flush()
	return ids
}

// afterColon says that the model writes the space before its answer.
func (f ChatForm) afterColon() bool { return strings.HasSuffix(f.Assistant.Before, ":") }

// chatRequest is the body of /v1/chat/completions.
type chatRequest struct {
	sampling
	Messages            messages `json:"messages"`
	MaxCompletionTokens *int     `json:"max_completion_tokens"`
	LogProbs            bool     `json:"logprobs"`
	TopLogProbs         *int     `json:"top_logprobs"`
}

// most is the bound of tokens under either of its names.
func (r *chatRequest) most() (*int, error) {
	switch old, now := r.MaxTokens, r.MaxCompletionTokens; {
	case now == nil:
		return old, nil
	case old != nil && *old != *now:
		return nil, badRequest("max_completion_tokens",
			"max_completion_tokens is %d, and its old name max_tokens %d: give one of them", *now, *old)
	case *now < -1:
		return nil, outOf("max_completion_tokens", *now, ranges["max_completion_tokens"])
	default:
		return now, nil
	}
}

func (s *server) chat(w http.ResponseWriter, r *http.Request) {
	body := chatRequest{sampling: s.sampling()}
	err := s.read(w, r, &body)
	if err == nil {
		body.MaxTokens, err = body.most()
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	q, err := s.query(&body.sampling, -1)
	if err == nil {
		err = s.checkChat(body.Messages)
	}
	switch top := 0; {
	case err != nil:
	case body.LogProbs:
		if body.TopLogProbs != nil {
			top = *body.TopLogProbs
		}
		err = q.askLogProbs("top_logprobs", top)
	case body.TopLogProbs != nil && *body.TopLogProbs != 0:
		err = badRequest("top_logprobs", "top_logprobs without logprobs: ask for logprobs too")
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	if id, ok := s.m.Tokenizer().TokenID(s.o.chat.Stop); ok {
		q.options = append(q.options, photon.StopTokens(id))
	} else if stop := s.o.chat.Stop; stop != "" {
		q.options = append(q.options, photon.Stop(append([]string{stop}, body.Stop...)...))
	}
	q.source, q.prompts = "messages", make([][]int, 1)
	q.encode = func(int) []int {
		return append(slices.Clip(s.prefix), s.o.chat.encode(s.m.Tokenizer(), body.Messages)...)
	}
	q.id, q.shape = "chatcmpl-"+q.id, &reply{t: s.m.Tokenizer(), trim: s.o.chat.afterColon(),
		begun: map[int]bool{}, logProbs: body.LogProbs}
	s.answer(w, r, q)
}

// checkChat reports a chat that there is no answer to.
func (s *server) checkChat(list messages) error {
	if s.o.chat == (ChatForm{}) {
		e := badRequest("", "%s continues texts and is not served as a chat model: use /v1/completions, "+
			"or have the server started with a chat form", s.o.name)
		e.code = "no_chat_form"
		return e
	}
	if len(list) == 0 {
		return badRequest("messages", "there are no messages: give one")
	}
	return nil
}

// messages are those of a conversation.
type messages []message

const mostMessages = 1 << 16 // and as many parts of a message

// idleMessage are fields of messages that ask for nothing as these values: histories repeat them from answers.
var idleMessage = map[string][]string{
	"annotations":       {"[]"},
	"reasoning_content": {`""`},
	"tool_calls":        {"[]"},
	"type":              {`"text"`}, // lm-evaluation-harness
}

func (l *messages) read(path func() string, r *strictjson.Reader) error {
	n := r.Len()
	if n > mostMessages {
		return badRequest(path(), "%s has %d messages: give at most %d", path(), n, mostMessages)
	}
	*l = make(messages, 0, r.Room(len(`{"role":"user","content":""},`)))
	return r.Array(func(i int) error {
		m, err := readMessage(func() string { return fmt.Sprintf("%s[%d]", path(), i) }, r)
		*l = append(*l, m)
		return err
	})
}

// readMessage reads the message that stands at a path of the body.
func readMessage(path func() string, r *strictjson.Reader) (message, error) {
	var m struct {
		Role    string  `json:"role"`
		Content content `json:"content"`
		Name    string  `json:"name"` // of a participant: not told to the model
	}
	if role := textOf(r, "role"); role == "tool" || role == "function" { // which has fields of its own
		return message{}, unknownRole(path, role)
	}
	if err := decodeFields(path, r, &m, idleMessage); err != nil {
		return message{}, err
	}
	if m.Role == "developer" {
		m.Role = "system"
	}
	switch {
	case m.Role != "system" && m.Role != "user" && m.Role != "assistant":
		return message{}, unknownRole(path, m.Role)
	case !m.Content.given:
		return message{}, badRequest(join(path(), "content"), "%s.content is missing: give the message's text", path())
	}
	return message{m.Role, m.Content.text}, nil
}

func unknownRole(path func() string, role string) error {
	return badRequest(join(path(), "role"), "%s.role is %.40q: give system, user or assistant", path(), role)
}

// textOf is the string that a key of the object that comes next has; "" where that is none.
func textOf(r *strictjson.Reader, name string) (text string) {
	c := r.Copy()
	c.Table(func(key string) (isNew bool, err error) {
		if key == name && c.Peek() == '"' {
			text, err = c.Text()
			return true, err
		}
		return true, c.Skip()
	})
	return text
}

// content is a message's text, a string or parts.
type content struct {
	given bool
	text  string
}

func (c *content) read(path func() string, r *strictjson.Reader) (err error) {
	c.given = true
	if r.Peek() == '"' {
		c.text, err = r.String()
		return err
	}
	n := 0
	if r.Peek() == '[' {
		n = r.Len()
	}
	switch {
	case n == 0:
		return badRequest(path(), "%s is to be a string or a list of text parts", path())
	case n > mostMessages:
		return badRequest(path(), "%s has %d parts: give at most %d", path(), n, mostMessages)
	}
	var all strings.Builder
	err = r.Array(func(i int) error {
		path := func() string { return fmt.Sprintf("%s[%d]", path(), i) }
		if textOf(r, "type") != "text" {
			return badRequest(join(path(), "type"),
				`%s is not of type "text": give text parts alone, as nothing else is read`, path())
		}
		var part struct {
			Type string  `json:"type"`
			Text *string `json:"text"`
		}
		if err := decodeFields(path, r, &part, nil); err != nil {
			return err
		}
		if part.Text == nil {
			return badRequest(join(path(), "text"), "%s.text is missing: give the part's text", path())
		}
		all.WriteString(*part.Text)
		return nil
	})
	c.text = all.String()
	return err
}

// reply words the answers of /v1/chat/completions.
type reply struct {
	t     *photon.Tokenizer
	trim  bool         // the answer follows a colon: the white space behind that is not part of it
	begun map[int]bool // by choice: it has text

	logProbs bool // asked for
}

type chatChoice struct {
	Index    int           `json:"index"`
	Message  *chatText     `json:"message,omitempty"`
	Delta    *chatText     `json:"delta,omitempty"`
	LogProbs *chatLogProbs `json:"logprobs"`
	Finish   *string       `json:"finish_reason"`
}

type chatText struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
	Refusal *string `json:"refusal,omitempty"`
}

type chatLogProbs struct {
	Content []chatToken `json:"content"`
}

type chatToken struct {
	chatProb
	Top []chatProb `json:"top_logprobs"`
}

type chatProb struct {
	Token   string  `json:"token"`
	LogProb float32 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

func (c *reply) object(stream bool) string {
	if stream {
		return "chat.completion.chunk"
	}
	return "chat.completion"
}

func (c *reply) choice(p *piece, stream bool) any {
	text := p.s
	if c.trim && !c.begun[p.text] {
		text = strings.TrimLeft(text, " \n")
		c.begun[p.text] = text != ""
	}
	out := chatChoice{Index: p.text, Finish: orNull(p.finish)}
	said := &chatText{}
	if p.begins {
		said.Role = "assistant"
	}
	if p.begins || text != "" {
		said.Content = &text
	}
	if stream {
		out.Delta = said
	} else {
		out.Message = said
	}
	if c.logProbs && !stream {
		out.LogProbs = &chatLogProbs{Content: []chatToken{}} // also where no token is told
	}
	for _, t := range p.tokens {
		if t.silent {
			continue
		}
		entry := chatToken{chatProb: c.prob(t.TokenProb), Top: []chatProb{}}
		for _, other := range t.top.tokens {
			entry.Top = append(entry.Top, c.prob(other))
		}
		if out.LogProbs == nil {
			out.LogProbs = &chatLogProbs{}
		}
		out.LogProbs.Content = append(out.LogProbs.Content, entry)
	}
	return out
}

func (c *reply) prob(p photon.TokenProb) chatProb {
	out := chatProb{Token: tokenName(c.t, p.ID), LogProb: finite(p.LogProb)}
	for _, b := range c.t.Bytes(p.ID) {
		out.Bytes = append(out.Bytes, int(b))
	}
	return out
}
