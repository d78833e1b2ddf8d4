-- +goose Up

-- A named part of a tenant beside its default geo. That one has no row: a geo
-- of 0, in container and in policy, is the default one.
CREATE TABLE geo (
    id       BIGINT NOT NULL PRIMARY KEY,
    tenant   BIGINT NOT NULL,
    name     TEXT   NOT NULL,
    name_key TEXT   NOT NULL, -- lower case: a name is found whatever its case
    created  BIGINT NOT NULL,
    UNIQUE (tenant, name_key)
);

-- A host whose sites stand in a geo.
CREATE TABLE geo_host (
    id        BIGINT  NOT NULL PRIMARY KEY,
    tenant    BIGINT  NOT NULL,
    geo       BIGINT  NOT NULL REFERENCES geo (id),
    host_hash ${BLOB} NOT NULL, -- HMAC of the host, by which it is found
    host      ${BLOB} NOT NULL, -- sealed
    UNIQUE (tenant, host_hash)
);
