package serve

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/photon-lm/photon"
)

// ChatForm is how a conversation is laid out as a text that a model continues.
type ChatForm int

const (
	// NoChat is that of a model that continues texts, and was not made for conversations.
	NoChat ChatForm = iota
	// PlainChat is lines "User: …" and "Assistant: …", behind a paragraph of system messages. Any model continues it;
	// few answer well.
	PlainChat
	// ChatML has each message between <|im_start|> and <|im_end|>: Qwen, SmolLM2.
	ChatML
	// Llama3Chat has <|start_header_id|>, <|end_header_id|> and <|eot_id|>.
	Llama3Chat
)

// String returns the name that ParseChatForm takes.
func (f ChatForm) String() string {
	if names := [...]string{"none", "plain", "chatml", "llama3"}; f >= 0 && int(f) < len(names) {
		return names[f]
	}
	return fmt.Sprintf("ChatForm(%d)", int(f))
}

// ParseChatForm takes none, plain, chatml or llama3.
func ParseChatForm(name string) (ChatForm, error) {
	for f := NoChat; f <= Llama3Chat; f++ {
		if f.String() == name {
			return f, nil
		}
	}
	return NoChat, fmt.Errorf("serve: no chat form %q: give none, plain, chatml or llama3: %w", name, photon.ErrInvalid)
}

// specials are the tokens that a form needs, the one that ends an answer last.
func (f ChatForm) specials() []string {
	switch f {
	case ChatML:
		return []string{"<|im_start|>", "<|im_end|>"}
	case Llama3Chat:
		return []string{"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}
	}
	return nil
}

// Check reports why a model with this tokenizer cannot be served in the form: ErrUnsupported where it lacks tokens.
func (f ChatForm) Check(t *photon.Tokenizer) error {
	if f < NoChat || f > Llama3Chat {
		return fmt.Errorf("serve: chat form %v: no such form: %w", f, photon.ErrInvalid)
	}
	if f != NoChat && t == nil {
		return fmt.Errorf("serve: chat form %v: the model has no tokenizer.json: %w", f, photon.ErrUnsupported)
	}
	for _, token := range f.specials() {
		if _, ok := t.TokenID(token); !ok {
			return fmt.Errorf("serve: chat form %v: the model's tokenizer has no %s: choose the form that the model was "+
				"trained with: %w", f, token, photon.ErrUnsupported)
		}
	}
	return nil
}

type message struct {
	Role    string  `json:"role"`
	Content content `json:"content"`
}

// encode lays out a conversation up to where the answer begins. What messages say is plain text: they cannot spell
// special tokens.
func (f ChatForm) encode(t *photon.Tokenizer, messages []message) (ids []int) {
	special := func(i int) {
		id, _ := t.TokenID(f.specials()[i])
		ids = append(ids, id)
	}
	text := func(s string) { ids = append(ids, t.EncodeText(s)...) }
	answer := message{Role: "assistant"}
	switch f {
	case ChatML:
		for _, m := range messages {
			special(0)
			text(m.Role + "\n" + string(m.Content))
			special(1)
			text("\n")
		}
		special(0)
		text(answer.Role + "\n")
	case Llama3Chat:
		for _, m := range append(slices.Clip(messages), answer) {
			special(0)
			text(m.Role)
			special(1)
			text("\n\n" + strings.TrimSpace(string(m.Content)))
			if m != answer {
				special(2)
			}
		}
	default:
		var all strings.Builder
		for _, m := range messages {
			switch m.Role {
			case "system":
				fmt.Fprintf(&all, "%s\n\n", m.Content)
			case "user":
				fmt.Fprintf(&all, "User: %s\n", m.Content)
			case "assistant":
				fmt.Fprintf(&all, "Assistant: %s\n", m.Content)
			}
		}
		text(all.String() + "Assistant:")
	}
	return ids
}

// chatRequest is the body of /v1/chat/completions.
type chatRequest struct {
	sampling
	Messages            []chatMessage `json:"messages"`
	MaxCompletionTokens *int          `json:"max_completion_tokens"`
	LogProbs            bool          `json:"logprobs"`
	TopLogProbs         *int          `json:"top_logprobs"`
}

type chatMessage struct {
	message
	Name    string `json:"name"`    // of a participant: not told to the model
	Refusal string `json:"refusal"` // as answers have it
}

func (s *server) chat(w http.ResponseWriter, r *http.Request) {
	var body chatRequest
	if err := s.read(w, r, &body); err != nil {
		s.fail(w, err)
		return
	}
	if body.MaxCompletionTokens != nil {
		body.MaxTokens = body.MaxCompletionTokens
	}
	q, err := s.query(&body.sampling, -1)
	if err == nil {
		q.prompts, err = s.conversation(body.Messages)
	}
	switch top := 0; {
	case err != nil:
	case body.LogProbs:
		if body.TopLogProbs != nil {
			top = *body.TopLogProbs
		}
		err = q.askLogProbs("top_logprobs", top)
	case body.TopLogProbs != nil:
		err = badRequest("top_logprobs", "top_logprobs without logprobs: ask for logprobs too")
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	if special := s.o.chat.specials(); len(special) > 0 {
		id, _ := s.m.Tokenizer().TokenID(special[len(special)-1])
		q.options = append(q.options, photon.StopTokens(id))
	} else {
		q.options = append(q.options, photon.Stop(append([]string{"\nUser:"}, body.Stop...)...))
	}
	q.id, q.shape = "chatcmpl-"+q.id, &reply{t: s.m.Tokenizer(), trim: s.o.chat == PlainChat, begun: map[int]bool{}}
	s.answer(w, r, q)
}

// conversation is the prompt of a chat.
func (s *server) conversation(list []chatMessage) ([][]int, error) {
	if s.o.chat == NoChat {
		e := badRequest("", "%s continues texts and is not served as a chat model: use /v1/completions, "+
			"or have the server started with a chat form", s.o.name)
		e.code = "no_chat_form"
		return nil, e
	}
	if len(list) == 0 {
		return nil, badRequest("messages", "there are no messages: give one")
	}
	var messages []message
	for i, m := range list {
		if m.Role == "developer" {
			m.Role = "system"
		}
		if m.Role != "system" && m.Role != "user" && m.Role != "assistant" {
			return nil, badRequest("messages", "message %d is of role %q: give system, user or assistant", i, m.Role)
		}
		messages = append(messages, m.message)
	}
	ids := append(slices.Clip(s.prefix), s.o.chat.encode(s.m.Tokenizer(), messages)...)
	return [][]int{ids}, nil
}

// reply words the answers of /v1/chat/completions.
type reply struct {
	t     *photon.Tokenizer
	trim  bool         // the answer follows a colon: the white space behind that is not part of it
	begun map[int]bool // by choice: it has text
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
	for _, t := range p.tokens {
		if t.silent {
			continue
		}
		entry := chatToken{chatProb: c.prob(t.TokenProb), Top: []chatProb{}}
		for _, other := range t.top {
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
