-- +goose Up

-- The secrets by which applications log in.
CREATE TABLE credential (
    tenant    BIGINT  NOT NULL,
    id        TEXT    NOT NULL, -- a GUID
    principal TEXT    NOT NULL, -- principal.id of the application
    name      TEXT    NOT NULL,
    hash      ${BLOB} NOT NULL, -- SHA-256 of 32 random bytes as text
    created   BIGINT  NOT NULL, -- Unix milliseconds
    expires   BIGINT  NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX credential_principal ON credential (tenant, principal);
