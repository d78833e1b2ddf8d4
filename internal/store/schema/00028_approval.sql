-- +goose Up

-- Acts that wait for a second person.
CREATE TABLE approval_request (
    id        BIGINT  NOT NULL PRIMARY KEY, -- its texts are sealed for it; of a purge: purge.id
    tenant    BIGINT  NOT NULL,
    operation TEXT    NOT NULL,
    target    ${BLOB} NOT NULL, -- sealed
    input     ${BLOB} NOT NULL, -- sealed
    requester TEXT    NOT NULL, -- principal.id
    people    TEXT    NOT NULL, -- principal.id of the requester and of everyone who has seen its secret, separated by spaces
    requested BIGINT  NOT NULL,
    expires   BIGINT  NOT NULL,
    needed    BIGINT  NOT NULL, -- approvals
    state     TEXT    NOT NULL,
    ended     BIGINT  NOT NULL, -- 0: it has not
    outcome   ${BLOB} NOT NULL  -- sealed: why it failed
);
CREATE INDEX approval_request_tenant ON approval_request (tenant, id);
CREATE INDEX approval_request_state ON approval_request (state, id);

CREATE TABLE approval_decision (
    request  BIGINT NOT NULL REFERENCES approval_request (id),
    approver TEXT   NOT NULL, -- principal.id
    tenant   BIGINT NOT NULL,
    approves BIGINT NOT NULL, -- 0: rejects
    at       BIGINT NOT NULL,
    PRIMARY KEY (request, approver)
);
