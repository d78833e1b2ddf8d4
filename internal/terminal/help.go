package terminal

import "strings"

// Help joins a paragraph, which may be empty, and examples.
func Help(text string, examples ...string) string {
	var b strings.Builder
	if text != "" {
		b.WriteString(text + "\n\n")
	}
	b.WriteString("Example:\n\n")
	for _, line := range examples {
		b.WriteString("    " + line + "\n")
	}
	return b.String()
}
