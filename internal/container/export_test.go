package container

var Normalise = normalise
