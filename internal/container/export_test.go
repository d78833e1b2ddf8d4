package container

var Normalise = normalise

// Forms are the exact and the folded form of a name.
func (s spelling) Forms() (exact, folded string) { return s.exact, s.folded }
