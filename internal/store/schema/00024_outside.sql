-- +goose Up

-- What a tenant may use of the vaults outside this keyroll, which one identity
-- reaches for all tenants: all vaults of an Entra directory, or one vault.
CREATE TABLE outside (
    tenant  BIGINT NOT NULL,
    kind    TEXT   NOT NULL, -- directory, vault
    name    TEXT   NOT NULL, -- GUID of the directory; URL of the vault; in lower case
    created BIGINT NOT NULL, -- Unix milliseconds
    PRIMARY KEY (tenant, kind, name)
);
CREATE INDEX outside_name ON outside (kind, name);
