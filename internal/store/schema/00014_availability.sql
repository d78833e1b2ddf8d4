-- +goose Up
CREATE TABLE availability_version ( -- what the store of availability keys holds; no key
  id        BIGINT NOT NULL, -- of the availability key
  version   BIGINT NOT NULL,
  tenant    BIGINT NOT NULL,
  policy    BIGINT NOT NULL,
  created   BIGINT NOT NULL,
  destroyed BIGINT NOT NULL DEFAULT 0, -- 0 while the store may have it
  PRIMARY KEY (id, version)
);
CREATE INDEX availability_version_policy ON availability_version (tenant, policy);
