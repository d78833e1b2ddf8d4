package mbox

// ReadDate reads a Date field.
var ReadDate = readDate
