-- +goose Up

CREATE TABLE vault (
    id               BIGINT NOT NULL PRIMARY KEY,
    tenant           BIGINT NOT NULL,
    name             TEXT   NOT NULL,        -- as given
    name_folded      TEXT   NOT NULL UNIQUE, -- lower case; one namespace for all tenants, as names are hosts
    subscription     TEXT   NOT NULL,        -- a GUID that the tenant chose
    resource_group   TEXT   NOT NULL,
    location         TEXT   NOT NULL,
    sku              TEXT   NOT NULL,
    retention_days   BIGINT NOT NULL,
    purge_protection BIGINT NOT NULL,
    tags             TEXT   NOT NULL, -- a JSON object, opaque to SQL
    created          BIGINT NOT NULL,
    updated          BIGINT NOT NULL,
    deleted          BIGINT NOT NULL, -- 0: not deleted
    purge_at         BIGINT NOT NULL  -- 0: not deleted
);
CREATE INDEX vault_by_tenant ON vault (tenant, name_folded);

-- What one principal may do with the keys of one vault.
CREATE TABLE vault_permission (
    vault       BIGINT NOT NULL,
    tenant      BIGINT NOT NULL,
    principal   TEXT   NOT NULL,
    permissions TEXT   NOT NULL, -- separated by spaces
    PRIMARY KEY (vault, principal)
);

-- People that access policies name. They have no secret and cannot log in.
CREATE TABLE vault_person (
    tenant BIGINT  NOT NULL,
    id     TEXT    NOT NULL, -- object id, a GUID
    name   ${BLOB} NOT NULL, -- user principal name under the seal
    PRIMARY KEY (tenant, id)
);

-- What subscriptions are registered for: features and resource providers.
CREATE TABLE vault_registration (
    tenant       BIGINT NOT NULL,
    subscription TEXT   NOT NULL,
    name         TEXT   NOT NULL, -- PROVIDER, or PROVIDER/FEATURE
    created      BIGINT NOT NULL,
    PRIMARY KEY (tenant, subscription, name)
);

CREATE TABLE vault_key (
    id          BIGINT NOT NULL PRIMARY KEY,
    tenant      BIGINT NOT NULL,
    vault       BIGINT NOT NULL,
    name        TEXT   NOT NULL, -- as given
    name_folded TEXT   NOT NULL, -- lower case
    latest      BIGINT NOT NULL, -- number of the newest version
    deleted     BIGINT NOT NULL, -- 0: not deleted
    purge_at    BIGINT NOT NULL, -- 0: not deleted
    UNIQUE (vault, name_folded)
);

CREATE TABLE vault_key_version (
    id         BIGINT  NOT NULL PRIMARY KEY,
    tenant     BIGINT  NOT NULL,
    vault_key  BIGINT  NOT NULL,
    number     BIGINT  NOT NULL, -- counted from 1 inside its key
    version    TEXT    NOT NULL, -- 32 hex digits
    type       TEXT    NOT NULL, -- RSA, RSA-HSM, EC, EC-HSM
    operations TEXT    NOT NULL, -- separated by spaces
    enabled    BIGINT  NOT NULL,
    not_before BIGINT,
    expires    BIGINT,
    tags       TEXT    NOT NULL, -- a JSON object, opaque to SQL
    created    BIGINT  NOT NULL,
    updated    BIGINT  NOT NULL,
    public     ${BLOB} NOT NULL, -- PKIX (RFC 5280), for display
    sealed     ${BLOB} NOT NULL, -- PKCS #8 (RFC 5208) under the seal
    UNIQUE (vault_key, number),
    UNIQUE (vault_key, version)
);
