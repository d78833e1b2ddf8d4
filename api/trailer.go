package api

// TrailerHeader is a header of requests for content. If it names ProblemTrailer,
// content of unknown size ends with that trailer, and the response has the same
// header, from which the caller knows that a response without the trailer is
// incomplete. Without the header the server can report a failure after the first byte
// only by cutting the connection.
const TrailerHeader = "Keyroll-Trailer"

// ProblemTrailer is the trailer that says how content ended, in JSON: null for success, or a Problem.
const ProblemTrailer = "Keyroll-Problem"
