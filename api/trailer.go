package api

// TrailerHeader is a header of requests for content. Where it names ProblemTrailer,
// content of unknown size ends with that trailer, and the answer has the same
// header, by which the caller knows that an answer without the trailer is not whole.
// Without it a failure after the first byte can only cut the connection.
const TrailerHeader = "Keyroll-Trailer"

// ProblemTrailer is the trailer that says how content ended: JSON, null or a Problem.
const ProblemTrailer = "Keyroll-Problem"
