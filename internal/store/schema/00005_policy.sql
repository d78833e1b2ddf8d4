-- +goose Up
CREATE TABLE policy (
  id          BIGINT PRIMARY KEY,
  tenant      BIGINT NOT NULL,
  guid        TEXT   NOT NULL UNIQUE,
  kind        TEXT   NOT NULL,
  name        TEXT   NOT NULL,
  name_key    TEXT   NOT NULL, -- lower case: a name is found whatever its case
  description TEXT   NOT NULL,
  enabled     BIGINT NOT NULL,
  current     BIGINT NOT NULL, -- policy_key.id
  created     BIGINT NOT NULL,
  geo         BIGINT NOT NULL DEFAULT 0, -- whose sites it covers: geo.id; 0: the default one
  assigned    BIGINT NOT NULL DEFAULT 0, -- 1: the multi-workload policy of the tenant
  recovery    BIGINT NOT NULL DEFAULT 0, -- when recovery mode began; 0: it is not in it
  purge       BIGINT NOT NULL DEFAULT 0, -- 0 not asked for, 1 requested, 2 carried out
  left_at     BIGINT NOT NULL DEFAULT 0, -- when it was left, for good; 0: it was not
  UNIQUE (tenant, name_key)
);
CREATE UNIQUE INDEX policy_assigned ON policy (tenant) WHERE assigned = 1;
CREATE TABLE policy_key (
  id         BIGINT PRIMARY KEY,
  tenant     BIGINT NOT NULL,
  policy     BIGINT NOT NULL REFERENCES policy (id),
  generation BIGINT NOT NULL,
  created    BIGINT NOT NULL,
  UNIQUE (policy, generation)
);
CREATE TABLE revision (
  id                   BIGINT PRIMARY KEY,
  tenant               BIGINT NOT NULL,
  guid                 TEXT   NOT NULL UNIQUE,
  policy               BIGINT NOT NULL REFERENCES policy (id),
  policy_key           BIGINT NOT NULL REFERENCES policy_key (id),
  primary_vault        TEXT   NOT NULL,
  primary_key_name     TEXT   NOT NULL,
  primary_version      TEXT   NOT NULL,
  secondary_vault      TEXT   NOT NULL,
  secondary_key_name   TEXT   NOT NULL,
  secondary_version    TEXT   NOT NULL,
  availability         BIGINT NOT NULL,
  availability_version BIGINT NOT NULL,
  wrap_primary         ${BLOB} NOT NULL,
  wrap_secondary       ${BLOB} NOT NULL,
  wrap_availability    ${BLOB} NOT NULL,
  mac                  ${BLOB} NOT NULL,
  created              BIGINT NOT NULL,
  erased               BIGINT NOT NULL -- 0 while its wraps are kept
);
CREATE UNIQUE INDEX revision_kept ON revision (policy_key) WHERE erased = 0;
CREATE INDEX revision_policy ON revision (tenant, policy, id);
