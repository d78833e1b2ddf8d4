package cmdlet

func subscriptionCmdlets() []*Cmdlet { return nil }
func onboardingCmdlets() []*Cmdlet   { return nil }
