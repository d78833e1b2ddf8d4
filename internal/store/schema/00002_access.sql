-- +goose Up

-- Who may act. The same id may stand in several tenants: the built-in service
-- principals have the same application id everywhere.
CREATE TABLE principal (
    tenant      BIGINT  NOT NULL,
    id          TEXT    NOT NULL, -- application id and object id, a GUID
    name        TEXT    NOT NULL,
    roles       TEXT    NOT NULL, -- separated by spaces
    secret_hash ${BLOB} NOT NULL UNIQUE, -- SHA-256 of 32 random bytes as text
    created     BIGINT  NOT NULL,
    PRIMARY KEY (tenant, id)
);
