"""The policies as Terraform renders them: out of the states of the control plane, of
`bootstrap` and of one enclave."""

import json

from .evaluator import Policies, Principal

OTHER_ACCOUNT = "210987654321"
_EVERYTHING = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}


class Rendering:
    """What the states hold: roles and resources by the names that calls use."""

    def __init__(self, *states):
        self._resources = []
        for state in states:
            for group in state["resources"]:
                if group["mode"] == "managed":
                    for instance in group["instances"]:
                        self._resources.append((group["type"], group["name"], instance.get("index_key"), instance["attributes"]))
        self.account = self.one("aws_iam_role", "this", "runner")["arn"].split(":")[4]
        self.roles = {index: values["arn"] for _, _, index, values in self.of("aws_iam_role")}
        self.policies = self._policies()

    def of(self, kind, name=None, index=None):
        return [resource for resource in self._resources if resource[0] == kind
                and name in (None, resource[1]) and index in (None, resource[2])]

    def one(self, kind, name=None, index=None):
        found = self.of(kind, name, index)
        assert len(found) == 1, f"{kind} {name} {index}: {len(found)}"
        return found[0][3]

    def role(self, name):
        return Principal(self.account, self.roles[name])

    def service(self, name):
        return Principal(self.account, f"{name}.amazonaws.com", is_service=True)

    def ecr(self):
        """Who signs the addresses of an image's layers: somebody of another account."""
        return Principal("000000000000", f"arn:{self.partition}:iam::000000000000:role/ecr")

    def administrator(self):
        """Who may do in this account whatever resources do not refuse."""
        return Principal(self.account, f"arn:{self.partition}:iam::{self.account}:role/admin")

    def stranger(self):
        """An administrator of another account: it allows its own everything."""
        return Principal(OTHER_ACCOUNT, f"arn:{self.partition}:iam::{OTHER_ACCOUNT}:role/theirs")

    def _policies(self):
        identities = {arn: [] for arn in self.roles.values()}
        for one in (self.administrator(), self.stranger()):
            identities[one.name] = [_EVERYTHING]
        identities[self.ecr().name] = [{"Version": "2012-10-17", "Statement": {
            "Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}}]
        by_role = {values["id"]: values["arn"] for _, _, _, values in self.of("aws_iam_role")}
        for _, _, _, values in self.of("aws_iam_role_policy"):
            identities[by_role[values["role"]]].append(json.loads(values["policy"]))
        resources = {}
        for _, _, _, values in self.of("aws_iam_role"):
            resources[values["arn"]] = json.loads(values["assume_role_policy"])
        for _, _, _, values in self.of("aws_kms_key"):
            resources[values["arn"]] = json.loads(values["policy"])
        for _, _, _, values in self.of("aws_s3_bucket_policy"):
            resources[f"arn:{self.partition}:s3:::{values['bucket']}"] = json.loads(values["policy"])
        for _, _, _, values in self.of("aws_sns_topic_policy"):
            resources[values["arn"]] = json.loads(values["policy"])
        queues = {values["url"]: values["arn"] for _, _, _, values in self.of("aws_sqs_queue")}
        for _, _, _, values in self.of("aws_sqs_queue_policy"):
            resources[queues[values["queue_url"]]] = json.loads(values["policy"])
        # A policy of CloudWatch Logs is the account's: it names the groups itself.
        for _, _, _, values in self.of("aws_cloudwatch_log_resource_policy"):
            resources[f"arn:{self.partition}:logs:*:*:log-group:*"] = json.loads(values["policy_document"])
        for arn, statements in self._permissions().items():
            resources[arn] = {"Version": "2012-10-17", "Statement": statements}
        endpoints = {}
        for _, name, index, values in self.of("aws_vpc_endpoint"):
            endpoints[index or name] = json.loads(values["policy"])
        boundaries = [values["permissions_boundary"] for _, _, _, values in self.of("aws_iam_role")]
        assert not any(boundaries), "the documents of permissions boundaries are not read yet"
        known = {"aws_iam_role", "aws_iam_role_policy", "aws_kms_key", "aws_s3_bucket_policy", "aws_sns_topic_policy",
                 "aws_sqs_queue_policy", "aws_cloudwatch_log_resource_policy", "aws_lambda_permission", "aws_vpc_endpoint",
                 "aws_ecr_lifecycle_policy"}
        others = {kind for kind, _, _, _ in self._resources if "policy" in kind or "permission" in kind} - known
        assert not others, f"policies that are not read yet: {sorted(others)}"
        return Policies(identities, resources, endpoints)

    @property
    def partition(self):
        return self.one("aws_iam_role", "this", "runner")["arn"].split(":")[1]

    def _permissions(self):
        """What `aws_lambda_permission` adds to the policies of functions."""
        functions = {values["function_name"]: values["arn"] for _, _, _, values in self.of("aws_lambda_function")}
        found = {}
        for _, _, _, values in self.of("aws_lambda_permission"):
            arn = functions[values["function_name"]]
            if values["qualifier"]:
                arn = f"{arn}:{values['qualifier']}"
            condition = {}
            if values["source_arn"]:
                condition["ArnLike"] = {"aws:SourceArn": values["source_arn"]}
            if values["source_account"]:
                condition["StringEquals"] = {"aws:SourceAccount": values["source_account"]}
            found.setdefault(arn, []).append({
                "Sid": values["statement_id"], "Effect": "Allow", "Principal": {"Service": values["principal"]},
                "Action": values["action"], "Resource": arn, "Condition": condition,
            })
        return found
