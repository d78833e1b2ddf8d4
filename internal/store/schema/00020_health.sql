-- +goose Up

-- What the last definitive answer of a customer key was: of one exact version,
-- used for one policy by one principal of the service. No row: it has not served
-- yet. All nodes share the rows; one is written when the state changes.
CREATE TABLE root_health (
    tenant    BIGINT NOT NULL,
    policy    BIGINT NOT NULL,
    principal TEXT   NOT NULL, -- of the service, by whose permissions it is used
    vault     TEXT   NOT NULL, -- lower case, as the key's name
    key_name  TEXT   NOT NULL,
    version   TEXT   NOT NULL,
    state     TEXT   NOT NULL, -- serves, refused, unreachable
    reason    TEXT   NOT NULL, -- of a refusal or an outage
    since     BIGINT NOT NULL, -- Unix milliseconds
    serial    BIGINT NOT NULL, -- grows with each change
    PRIMARY KEY (tenant, policy, principal, vault, key_name, version)
);

-- 1: the node writes root_health. Nodes of earlier versions do not.
ALTER TABLE node ADD COLUMN records_health BIGINT NOT NULL DEFAULT 0;
