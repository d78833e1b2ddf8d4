-- +goose Up
CREATE TABLE audit_entry (
  id        BIGINT PRIMARY KEY,
  tenant    BIGINT NOT NULL,
  time      BIGINT NOT NULL,
  request   TEXT   NOT NULL,
  principal TEXT   NOT NULL,
  operation TEXT   NOT NULL,
  outcome   TEXT   NOT NULL,
  detail    TEXT   NOT NULL,
  actor     ${BLOB},
  target    ${BLOB}
);
CREATE INDEX audit_entry_tenant ON audit_entry (tenant, id);
