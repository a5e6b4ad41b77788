"""Names of config fields in other libraries: TrainingArguments and model configs of transformers, peft, Keras, Lightning."""

# Config field -> its names in other libraries, separated by blanks.
FIELDS = {
    "total_epochs": "epochs num_train_epochs num_epochs n_epochs max_epochs train_epochs",
    "total_steps": "max_steps num_train_steps train_steps steps steps_per_epoch num_steps iterations",
    "learning_rate": "lr learning_rates peak_lr init_lr",
    "schedule": "lr_scheduler_type lr_scheduler scheduler lr_schedule decay",
    "warmup_percent": "warmup warmup_ratio warmup_proportion",
    "warmup_steps": "num_warmup_steps",
    "batch_size": "per_device_train_batch_size per_gpu_train_batch_size train_batch_size train_bs bs auto_find_batch_size",
    "eval_batch_tokens": "per_device_eval_batch_size eval_batch_size test_batch_size validation_batch_size",
    "accumulate": "gradient_accumulation_steps accumulate_grad_batches grad_accum gradient_accumulation",
    "clip_norm": "max_grad_norm clipnorm global_clipnorm grad_clip gradient_clip_val clip gradient_clipping",
    "optimizer": "optim optimiser",
    "weight_decay": "wd l2 decay_rate",
    "beta1": "adam_beta1 beta_1",
    "beta2": "adam_beta2 beta_2",
    "epsilon": "adam_epsilon eps",
    "label_smoothing": "label_smoothing_factor smoothing",
    "dropout": "hidden_dropout_prob hidden_dropout dropout_rate resid_pdrop classifier_dropout",
    "attention_dropout": "attention_probs_dropout_prob attn_dropout attn_pdrop",
    "remat": "gradient_checkpointing checkpoint_activations activation_checkpointing",
    "precision": "fp16 bf16 tf32 dtype torch_dtype mixed_precision half_precision amp bf16_full_eval fp16_full_eval",
    "packing": "group_by_length pad_to_max_length padding length_grouping bucketing",
    "parallel": "fsdp deepspeed ddp strategy distribute data_parallel num_devices",
    "log_steps": "logging_steps log_every_n_steps log_interval",
    "checkpoint_epochs": "save_strategy save_freq save_epochs",
    "checkpoint_steps": "save_steps save_interval",
    "eval_epochs": "eval_strategy evaluation_strategy validation_freq check_val_every_n_epoch do_eval",
    "eval_steps": "evaluation_steps val_check_interval eval_interval",
    "patience_epochs": "early_stopping early_stopping_patience earlystopping patience",
    "metric": "metric_for_best_model monitor metrics eval_metric scoring task.metric",
    "positive": "pos_label positive_class",
    "max_length": "max_seq_length max_len maxlen seq_len seq_length model_max_length sequence_length max_position_embeddings",
    "truncation": "truncation_side truncating truncation_strategy",
    "pooling": "pooling_mode pool summary_type classifier_pooling",
    "weights.source": "model_name_or_path model_name model_path pretrained_model_name_or_path pretrained checkpoint model.name",
    "weights.head": "keep_head reuse_head",
    "weights.adapter": "adapter_name_or_path peft_model_id adapter_path",
    "data.path": "data_dir dataset_path train_file data_path dataset_dir",
    "data.source": "dataset dataset_name",
    "data.train_examples": "max_train_samples train_size few_shot n_train num_train_examples",
    "data.eval_examples": "max_eval_samples max_val_samples max_test_samples max_predict_samples",
    "data.dev_fraction": "validation_split val_split validation_fraction dev_split test_size",
    "data.augment": "augmentation data_augmentation",
    "seed": "random_state random_seed data_seed",
    "method": "peft peft_type peft_config finetuning_type tuner_type",
    "freeze": "freeze_encoder freeze_layers frozen trainable freeze_base freeze_embeddings",
    "top_layers": "num_layers_to_train unfreeze_last",
    "llrd_decay": "llrd layerwise_lr_decay layer_wise_lr_decay lr_layer_decay",
    "lora.rank": "lora_r lora_rank r lora.r rank",
    "lora.alpha": "lora_alpha",
    "lora.targets": "target_modules lora_target lora_targets lora.target_modules",
    "lora.dropout": "lora_dropout",
    "lora.rank_stabilised": "use_rslora rslora lora.rank_stabilized rank_stabilized",
    "prefix.tokens": "num_virtual_tokens prefix_length pre_seq_len",
}

# Settings of other libraries that are not config fields here -> what to do instead.
ADVICE = {
    "class_weights class_weight weighted_loss focal_loss": "the loss is not weighted by class here; --config.metric=macro_f1 selects the "
    "checkpoint by a score that gives every class the same weight",
    "wandb report_to tensorboard logging_dir log_dir mlflow comet logger run_name wandb_project": "every run writes TensorBoard events "
    "and metrics.jsonl into its workdir (--workdir=); nothing is sent to a service",
    "output_dir out_dir save_dir save_path ckpt_dir default_root_dir": "a run's folder is --workdir=DIR",
    "overwrite_output_dir resume resume_from_checkpoint resume_from": "the same command resumes an unfinished run; remove the folder, or "
    "give another --workdir, to begin again",
    "load_best_model_at_end restore_best_weights save_best_only save_total_limit": "always on: the best checkpoint on dev is tested",
    "do_train do_predict do_test task_type": "use --mode=train, evaluate or predict",
    "push_to_hub hub_model_id save_pretrained": "--mode=export --output=FOLDER writes a folder for the Hugging Face libraries; upload it",
    "num_workers dataloader_num_workers dataloader_pin_memory": "batches are made while the device computes; there is nothing to set",
    "num_labels id2label label2id labels classes num_classes": "the classes are those of the task, else the labels of train",
    "shuffle": "training examples are shuffled in every epoch; --config.seed= sets the order",
    "device cuda no_cuda use_cpu gpu gpus device_map accelerator use_mps_device": "jax uses the accelerator that it finds; "
    "JAX_PLATFORMS=cpu in the environment selects the CPU, --config.parallel=jit selects one device",
    "compile torch_compile jit jit_compile": "every step is compiled; there is nothing to set",
    "verbose log_level callbacks disable_tqdm": "there is no such setting",
    "tokenizer tokenizer_name use_fast_tokenizer use_fast": "the tokenizer is that of the weights (--config.weights.source=)",
    "cache_dir hf_home": "the environment variable RESEARCH_CACHE names the cache folder",
}

_NAMES = {name: f"here it is {field!r}" for field, names in FIELDS.items() for name in names.split()}
_NAMES |= {name: advice for names, advice in ADVICE.items() for name in names.split()}


def meaning(name: str) -> str:
    """Return what to use here for another library's setting `name`, in any case and with dashes or underscores; "" if unknown."""
    key = name.lower().replace("-", "_")
    return _NAMES.get(key) or _NAMES.get(key.rpartition(".")[2], "")
